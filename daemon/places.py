"""Where the files lie that events name: inside the configured roots, links resolved; or plainly below one elsewhere."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from daemon.core.errors import InputError
from stages.roots import Remote, elsewhere, remote_of


class Places:
    """Finds files as the disk stands now: a root, and a folder on the way, is looked at once.

    Make one for each transaction: it would miss a link that took a folder's place later.
    """

    def __init__(self, roots: Sequence[Path | Remote]) -> None:
        self._all = roots
        self._roots = [root for root in roots if not isinstance(root, Remote)]
        self._bases: dict[str, str] = {}
        self._folders: set[str] = set()

    def remote(self, uri: str) -> str | None:
        """Return a uri that lies below a root elsewhere as it is, and None for one of this machine.

        Raises InputError for one of a protocol that a root has, and below none.
        """
        if "://" not in uri or not elsewhere(uri):
            return None
        if remote_of(uri, self._all) is not None:
            return uri
        protocol = uri.partition("://")[0].lower()
        known = [root.url for root in self._all if isinstance(root, Remote)]
        if any(url.startswith(f"{protocol}://") for url in known):
            message = f"{uri!r} lies plainly below none of the configured roots: {', '.join(known)}."
            raise InputError("outside_roots", message)
        return None

    def find(self, uri: str) -> tuple[str, os.stat_result | None]:
        """Return the file that a uri names, links resolved, and what is known of it: None, where it is not there.

        Raises InputError unless the file lies inside a root.
        """
        text = _path(uri)
        plain = self._without_links(text)
        if plain is not None:
            return plain
        path = Path(os.path.realpath(os.path.join(self._first(), text)))  # noqa: PTH118 - see `_without_links`
        if not any(path.is_relative_to(os.path.realpath(root)) for root in self._roots):
            known = ", ".join(str(root) for root in self._roots) or "none"
            raise InputError("outside_roots", f"{path} lies outside the configured roots: {known}.")
        return str(path), None

    def _first(self) -> str:
        return str(self._roots[0]) if self._roots else os.getcwd()  # noqa: PTH109 - as above

    def _without_links(self, text: str) -> tuple[str, os.stat_result] | None:
        """Return the file if nothing below its root is a link or a dot: then it is what it says, without resolving.

        Thousands of arrivals a second come this way; pathlib would take most of their time.
        """
        for root in map(str, self._roots):
            if text[0] != "/":
                rest = text
            elif text.startswith(f"{root}/"):
                rest = text[len(root) + 1 :]
            else:
                continue
            base = self._bases.get(root)
            if base is None:
                base = self._bases[root] = os.path.realpath(root).rstrip("/")
            folder, _, name = rest.rpartition("/")
            if name in _DOTS or not self._plain(base, folder):
                return None
            path = f"{base}/{rest}"
            try:
                status = os.lstat(path)
            except (OSError, ValueError):
                return None
            return None if stat.S_ISLNK(status.st_mode) else (path, status)
        return None

    def _plain(self, base: str, folder: str) -> bool:
        """Return whether every folder below `base` is a folder by itself."""
        if not folder or f"{base}/{folder}" in self._folders:
            return True
        path = base
        for name in folder.split("/"):
            path = f"{path}/{name}"
            if name in _DOTS or not self._is_folder(path):
                return False
        return True

    def _is_folder(self, path: str) -> bool:
        if path not in self._folders:
            try:
                if not stat.S_ISDIR(os.lstat(path).st_mode):
                    return False
            except (OSError, ValueError):
                return False
            self._folders.add(path)
        return True


_DOTS = frozenset({"", ".", ".."})


def local_path(uri: str, roots: Sequence[Path | Remote]) -> Path:
    """Return the file that a uri names; raises InputError unless it lies, links resolved, inside a root."""
    return Path(Places(roots).find(uri)[0])


def _path(uri: str) -> str:
    """Return the path that a uri is about; raises InputError for another scheme or host."""
    text = uri
    if ":" in uri or "//" in uri:  # else it is a path as it is
        try:
            parts = urlsplit(uri)
        except ValueError as error:
            raise InputError("outside_roots", f"{uri!r} is no uri: {error}.") from error
        if parts.scheme not in {"", "file"}:
            raise InputError("unknown_scheme", f"{uri!r} has scheme {parts.scheme!r}; known: file.")
        if parts.scheme == "file" and parts.netloc not in {"", "localhost"}:
            raise InputError("outside_roots", f"{uri!r} names the host {parts.netloc!r}; write file:///path.")
        text = unquote(parts.path) if parts.scheme == "file" else uri
    if "\0" in text or not text:
        raise InputError("outside_roots", f"{uri!r} names no file.")
    return text
