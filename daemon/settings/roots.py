"""Where data may lie: folders, and roots elsewhere with the credentials that open them."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Discriminator, Tag, model_validator

from daemon.core.errors import ConfigurationError
from daemon.settings.base import Model, Name, unique
from stages.credentials import read_credentials
from stages.roots import PROTOCOLS, UNPLAIN, Remote, plain


def _url(url: str) -> str:
    """Return a root's url without a slash at its end; no message shows it, for a password may be in it."""
    protocol, marker, rest = url.partition("://")
    host, _, path = rest.rstrip("/").partition("/")
    message = ""
    if marker and protocol == "file":
        message = "is on this machine: name the folder itself, without a scheme"
    elif not marker or protocol not in PROTOCOLS:
        message = f"must begin with one of {', '.join(f'{name}://' for name in PROTOCOLS)}"
    elif "@" in host:
        message = "must hold no name or password: `credentials` names their file"
    elif not host or UNPLAIN.search(url) or not _has_host(url) or (path and not plain(path)):
        message = "must be a bucket or host with a plain path, such as s3://bucket/in: no query, no `..`"
    if message:
        raise ValueError(message)
    return url.rstrip("/")


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


class RootSettings(Model):
    """A root elsewhere, read through fsspec."""

    url: Annotated[str, AfterValidator(_url)]
    credentials: Name | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, root: object) -> object:
        return {"url": root} if isinstance(root, str) else root


class CredentialsSettings(Model):
    """What opens a root: a file with a JSON object of fsspec's storage options."""

    name: Name
    file: Path


def _where(root: object) -> str:
    return (
        "elsewhere" if isinstance(root, dict | RootSettings) or (isinstance(root, str) and "://" in root) else "folder"
    )


AnyRoot = Annotated[
    Annotated[Path, Tag("folder")] | Annotated[RootSettings, Tag("elsewhere")],
    Discriminator(_where),
]
"""A folder, or a root elsewhere; a url alone is one without credentials."""


def check_roots(roots: Sequence[Path | RootSettings], credentials: Sequence[CredentialsSettings]) -> None:
    """Raise ValueError for names or roots that are given twice, and credentials that nobody has."""
    unique([each.name for each in credentials], "credentials")
    known = [each.name for each in credentials]
    urls = [root.url for root in roots if isinstance(root, RootSettings)]
    for root in roots:
        if not isinstance(root, RootSettings):
            continue
        if root.credentials is not None and root.credentials not in known:
            message = (
                f"root {root.url}: no credentials are called {root.credentials!r}; known: {', '.join(known) or 'none'}"
            )
            raise ValueError(message)
        if urls.count(root.url) > 1:
            message = f"root {root.url} is there twice"
            raise ValueError(message)


def remotes(
    roots: Sequence[Path | RootSettings], credentials: Sequence[CredentialsSettings], base: Path
) -> tuple[Remote, ...]:
    """Return the roots elsewhere, with the files of their credentials, whose paths count from `base`.

    Raises ConfigurationError for a protocol whose library is not installed.
    """
    files = {each.name: str(base / each.file) for each in credentials}
    found = []
    for root in roots:
        if isinstance(root, RootSettings):
            remote = Remote(url=root.url, credentials=files[root.credentials] if root.credentials else None)
            needed = PROTOCOLS[remote.protocol]
            if importlib.util.find_spec(needed.module) is None:
                raise ConfigurationError(
                    f"roots: {root.url} needs {needed.module}, which is not installed: {needed.install}."
                )
            found.append(remote)
    return tuple(found)


def check_credentials(found: Sequence[Remote]) -> None:
    """Raise ConfigurationError for a file of credentials that no stage could use today; each reads it anew."""
    for remote in found:
        if remote.credentials is not None:
            read_credentials(Path(remote.credentials))
