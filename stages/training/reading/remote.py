"""A file elsewhere, read through fsspec; every fault is told as the input's, the credentials' or the store's."""

import contextlib
import importlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, Final

from daemon.core.errors import ConfigurationError, StageError
from stages.credentials import Options, read_credentials, without_secrets
from stages.roots import PROTOCOLS, Remote
from stages.training.reading.unusable import Unusable

BLOCK = 8 << 20
"""Bytes that one request of a range asks for."""
CONNECT_SECONDS = 10
READ_SECONDS = 60
"""Longest silence of a store: shorter than any usual heartbeat."""
REFUSING: Final = frozenset({401, 403, 407})
BAD_REQUEST: Final = 400
GONE: Final = frozenset({404, 410})
EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired",
                            "AuthorizationHeaderMalformed", "RequestTimeTooSkewed"})  # fmt: skip
"""S3's codes that mean the credentials, though s3fs does not tell them as PermissionError."""
WITHOUT: Final = frozenset({"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError",
                            "TokenRetrievalError", "UnauthorizedSSOTokenError", "SSOTokenLoadError"})  # fmt: skip
"""botocore's errors where there is nothing to sign with."""


def fetch(url: str, remote: Remote, expect: Callable[[int], None]) -> Generator[bytes]:
    """Yield a file's bytes in blocks; `expect` is told its size first, where the store says one, and may raise.

    Raises Unusable when it is not there, is no file, or changed meanwhile, and StageError: `transient` for a fault of
    the store, and for credentials too. These are renewed by a person or by a machine beside the run, so that trying
    again is right, and neither the data (`data.rejected`) nor the configuration (`user_error`, never tried again) is
    to blame; the recovery's back-off and its budget bound how often.
    """
    with _store(url, remote) as files:
        path = files._strip_protocol(url)  # noqa: SLF001 - fsspec's own way from a url to a path
        info = files.info(path)
        if info.get("type") == "directory":
            raise Unusable("unreadable", f"{url} is a folder.")
        size = info.get("size") or None  # some servers answer a HEAD by a length of 0
        if size is not None:
            expect(size)
        # Over HTTP one request streams it all; elsewhere each block is one request, tied to the version seen first.
        streams = remote.protocol in {"http", "https"}
        how: Options = {"block_size": 0, "size": size} if streams else {"block_size": BLOCK, "cache_type": "none"}
        got = 0
        with files.open(path, "rb", **how) as file:
            while piece := file.read(BLOCK):
                got += len(piece)
                yield piece
        if size is not None and got != size:
            raise StageError("transient", f"{url}: {got} of {size} bytes came; it is fetched again.")


def size_of(url: str, remote: Remote) -> int | None:
    """Return a file's size as its store tells it; raises as `fetch` does."""
    with _store(url, remote) as files:
        size: int | None = files.info(files._strip_protocol(url)).get("size") or None  # noqa: SLF001 - as above
        return size


def look(remote: Remote) -> None:
    """List a root; raises StageError where that cannot be done, and Unusable where there is nothing."""
    with _store(remote.url, remote) as files:
        path = files._strip_protocol(remote.url)  # noqa: SLF001 - as above
        if remote.protocol == "s3":  # one name is enough: a bucket may hold millions
            bucket, _, prefix = path.partition("/")
            files.call_s3("list_objects_v2", Bucket=bucket, Prefix=f"{prefix}/" if prefix else "", MaxKeys=1)
        else:
            files.ls(path, detail=False)


@contextlib.contextmanager
def _store(url: str, remote: Remote) -> Iterator[Any]:
    """Yield the file system of a root; whatever it raises in the block is told as ours."""
    options: Options = {}
    try:
        options = read_credentials(Path(remote.credentials)) if remote.credentials else {}
        import fsspec

        # The same options give the same object, whose making takes a tenth of a second; renewed ones give another.
        yield fsspec.filesystem(remote.protocol, **{**_patience(remote.protocol, options), "use_listings_cache": False})
    except (Unusable, StageError, MemoryError):
        raise
    except ConfigurationError as error:
        raise _refused(url, remote, str(error)) from None
    except ImportError as error:
        message = f"{url} needs a library that is not here ({error}): {PROTOCOLS[remote.protocol].install}."
        raise StageError("user_error", message) from None
    except Exception as error:  # noqa: BLE001 - each library has errors of its own
        # Without the chain: a library's message, or a local variable's, may hold a secret.
        raise told(error, url, remote, options) from None


def _patience(protocol: str, options: Options) -> Options:
    """Return options under which no silence of the store lasts for ever; what is given goes before."""
    match protocol:
        case "s3":
            given = options.get("config_kwargs")
            limits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS}
            return {**options, "config_kwargs": {**limits, **(given if isinstance(given, dict) else {})}}
        case "http" | "https":
            given = options.get("client_kwargs")
            given = given if isinstance(given, dict) else {}
            timeout = importlib.import_module("aiohttp").ClientTimeout(
                total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS
            )
            # As it lies there: not compressed on the way, and what a server calls an encoding is the file's own.
            headers = {"Accept-Encoding": "identity", **given.get("headers", {})}
            limits = {"timeout": timeout, "auto_decompress": False}
            return {**options, "client_kwargs": {**limits, **given, "headers": headers}}
        case _:
            return options


def told(error: Exception, url: str, remote: Remote, options: Options) -> Unusable | StageError:
    """Return a library's error as the input's, the credentials' or the store's."""
    if remote.protocol in {"http", "https"} and isinstance(error.__cause__, Exception):
        error = error.__cause__  # fsspec says "not found" of whatever stands before a file's size, a refusal too
    status, code = _answer(error)
    said = without_secrets(f"{type(error).__name__}: {error}".strip(": "), options)[:500]
    if isinstance(error, FileNotFoundError) or status in GONE:
        return Unusable("vanished", f"{url} is not there (any more).")
    if isinstance(error, IsADirectoryError):
        return Unusable("unreadable", f"{url} is a folder.")
    if type(error).__name__ == "FileExpired":
        return Unusable("checksum", f"{url} changed while it was read: put it there when it is whole.")
    # S3 answers a HEAD with an expired token by a bare 400.
    bare = remote.protocol == "s3" and status == BAD_REQUEST
    refusing = isinstance(error, PermissionError) or status in REFUSING or bare or code in EXPIRED
    wrong_options = isinstance(error, TypeError | ValueError)
    if refusing or wrong_options or any(cls.__name__ in WITHOUT for cls in type(error).__mro__):
        return _refused(url, remote, said)
    return StageError("transient", f"{url} cannot be read now: {said}.")


def _answer(error: BaseException | None) -> tuple[int | None, str]:
    """Return the status and the code that the store answered with, as each library keeps them."""
    for name in ("status", "status_code", "code"):  # aiohttp, Azure, gcsfs
        status = getattr(error, name, None)
        if status is not None:
            return (status if isinstance(status, int) else None), ""
    while error is not None:  # s3fs tells its own, with botocore's behind it
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return status, str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return None, ""


def _refused(url: str, remote: Remote, said: str) -> StageError:
    if remote.credentials is None:
        what = f"root {remote.url} names no credentials: add some to the configuration"
    else:
        what = f"renew the credentials of root {remote.url} in {remote.credentials}: it is read anew each time"
    return StageError("transient", f"{url} is refused to us ({said.rstrip('.')}); {what}.")
