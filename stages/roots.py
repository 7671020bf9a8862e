"""Where data may lie: folders of this machine, and roots elsewhere, which fsspec reads.

Whether a url lies below a root elsewhere is decided here, once: for the door and again for the stage that reads.
"""

import re
from collections.abc import Iterable
from urllib.parse import unquote

import msgspec


class Protocol(msgspec.Struct, frozen=True):
    """What a root's protocol needs: the module that must be there, and how it is installed."""

    module: str
    install: str


PROTOCOLS = {
    "s3": Protocol("s3fs", "pip install 'rewarm[s3]'"),
    "gs": Protocol("gcsfs", "pip install gcsfs"),
    "az": Protocol("adlfs", "pip install adlfs"),
    "http": Protocol("aiohttp", "pip install aiohttp"),
    "https": Protocol("aiohttp", "pip install aiohttp"),
}
"""The protocols of roots elsewhere, all by fsspec."""
UNPLAIN = re.compile(r"[\x00-\x1f\x7f\\?#]|::")
"""What no url of data may hold: controls, a backslash, query and fragment, and `::`, by which fsspec chains."""
MOST_DECODED = 4


class Remote(msgspec.Struct, frozen=True, kw_only=True, tag="remote"):
    """A root elsewhere: its url without a slash at the end, and the file of its credentials, if it has any."""

    url: str
    credentials: str | None = None

    @property
    def protocol(self) -> str:
        """What stands before `://`."""
        return self.url.partition("://")[0]


Root = str | Remote
"""A folder's absolute path, or a root elsewhere."""


def elsewhere(uri: str) -> bool:
    """Return whether a uri is about another place than this machine's file system."""
    protocol, marker, _ = uri.partition("://")
    return bool(marker) and protocol.isalnum() and protocol.lower() != "file"


def remote_of(uri: str, roots: Iterable[object]) -> Remote | None:
    """Return the first root elsewhere that a uri lies below; None: below none of them, or not plainly.

    Compared are the characters themselves: scheme, host or bucket, and path up to a slash. Never plain are a query,
    a fragment, an empty or dotted part of the path, also percent-encoded, and an encoded slash. A root's host holds
    no `@`, so that no name or password fits.
    """
    for root in roots:
        if isinstance(root, Remote) and uri.startswith(f"{root.url}/") and plain(uri[len(root.url) + 1 :]):
            return root
    return None


def plain(path: str) -> bool:
    """Return whether each part of a path below a root is a name that leads nowhere else, however often decoded."""
    for _ in range(MOST_DECODED):
        if UNPLAIN.search(path) or any(part in {"", ".", ".."} for part in path.split("/")):
            return False
        decoded = unquote(path)
        if decoded == path:
            return True
        if decoded.count("/") != path.count("/"):
            return False
        path = decoded
    return False
