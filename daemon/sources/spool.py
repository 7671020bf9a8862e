"""The spool folder: files are renamed in, read once, and renamed out to `processed/` or `rejected/`.

A file holds one JSON document (an event, or an array of them: a batch) or one event a line. How far a file
was read is a cursor under its sha256, moved in the transaction that stores its events: a file that comes
twice, or that was stored but not yet moved out when the daemon died, is moved and counts once.
"""

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from daemon.core.errors import InputError, JournalError
from daemon.core.events import Record
from daemon.door import REFUSED, Door, Input, Letter, Offer, refuse
from daemon.journal.base import Cursor
from daemon.sources.queue import BATCH, Inbox
from daemon.sources.watch import Watch

SOURCE = "/spool"
MAX_FILE = 64 << 20
logger = logging.getLogger("rewarm.spool")


class Spool:
    """Feeds an inbox from a folder until stopped; `cursor` tells what the journal has of a file already."""

    def __init__(
        self,
        folder: Path,
        *,
        door: Door,
        inbox: Inbox,
        cursor: Callable[[str], int | None],
        report: Callable[[str, str | None], None],
        boundary: Callable[[str], None],
        poll: float = 5.0,
    ) -> None:
        self.name = "spool"
        self._folder = folder
        self._door = door
        self._inbox = inbox
        self._cursor = cursor
        self._report = report
        self._boundary = boundary
        self._poll = poll
        self._stop = threading.Event()
        self._watch = Watch(folder)
        self._sent: dict[str, int] = {}
        self._opened: tuple[tuple[str, int, int, int], str, list[Letter | Offer]] | None = None

    def prepare(self) -> None:
        """Make the folders."""
        for folder in (self._folder, self._folder / "processed", self._folder / "rejected"):
            folder.mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        """Read files as they come, until `stop`."""
        broken = False
        while not self._stop.is_set():
            try:
                if not broken:
                    self._watch.open()
                progressed = self.scan()
                if broken:
                    self._report(str(self._folder), None)
                broken = False
            except (OSError, JournalError) as error:
                if not broken:
                    logger.warning(
                        "The spool cannot be read.", extra={"folder": str(self._folder), "error": str(error)}
                    )
                    self._report(str(self._folder), str(error))
                broken = True
                progressed = False
            if not progressed and not self._stop.is_set():
                self._watch.wait(1.0 if broken else self._poll)
        self._watch.close()

    def stop(self) -> None:
        """End `run` soon."""
        self._stop.set()
        self._watch.wake()

    def scan(self) -> bool:
        """Read every file that lies there once; returns whether there was one to go on with.

        Raises OSError for the first file that cannot be read, after all others were.
        """
        self.prepare()
        progressed = False
        trouble: OSError | None = None
        for path in sorted(self._files()):
            if self._stop.is_set():
                break
            try:
                progressed = self._read(path) or progressed
            except OSError as error:  # one file that cannot be read keeps no other one waiting
                trouble = trouble or error
        if trouble is not None:
            raise trouble
        return progressed

    def _files(self) -> Iterator[Path]:
        with os.scandir(self._folder) as entries:
            for entry in entries:
                hidden = entry.name.startswith(".") or entry.name.endswith((".tmp", ".part"))
                if not hidden and entry.is_file(follow_symlinks=False):
                    yield Path(entry.path)

    def _read(self, path: Path) -> bool:
        """Send what the journal does not have of a file; moves it out once the journal has all of it."""
        try:
            name, letters = self._open(path)
        except FileNotFoundError:
            return False
        known = self._cursor(f"spool:{name}") or 0
        if known >= len(letters):
            self._sent.pop(name, None)
            if self._opened is None or self._opened[0] != _signature(path):
                return True  # another file came under this name meanwhile: it is read first
            self._move_out(path, len(letters), refused=bool(self._cursor(f"{REFUSED}spool:{name}")))
            return True
        begun = max(known, self._sent.get(name, 0))
        if begun >= len(letters):
            return False
        upto = min(len(letters), begun + BATCH)
        offers = tuple(self._offer(letter) for letter in letters[begun:upto])
        cursor = Cursor(name=f"spool:{name}", expected=begun or None, next=upto)
        self._sent[name] = upto
        return self._inbox.put(Input(offers=offers, cursor=cursor)) and upto < len(letters)

    def _open(self, path: Path) -> "tuple[str, list[Letter | Offer]]":
        """Return a file's name in the journal and its texts; a file that is read in several steps is parsed once."""
        signature = _signature(path)
        size = signature[3]
        if self._opened is None or self._opened[0] != signature:
            if size > MAX_FILE:
                name = hashlib.sha256(f"{path.name} {size}".encode()).hexdigest()
                letters: list[Letter | Offer] = [_too_large(path, name)]
            else:
                data = path.read_bytes()
                name = hashlib.sha256(data).hexdigest()
                letters = _letters(data, name, path.name, _owner(path))
            self._opened = (signature, name, letters)
        return self._opened[1], self._opened[2]

    def _offer(self, letter: "Letter | Offer") -> Offer:
        return letter if isinstance(letter, Offer) else self._door.receive(letter)

    def committed(self, records: Sequence[Record]) -> None:
        """Look again: the journal has moved on, and files may be ready to be moved out."""
        if self._sent:
            self._watch.wake()

    def forget(self) -> None:
        """Read again from where the journal stands: what was sent did not get in."""
        self._sent.clear()
        self._watch.wake()

    def _move_out(self, path: Path, events: int, *, refused: bool) -> None:
        folder = self._folder / ("rejected" if refused else "processed")
        target = folder / path.name
        number = 1
        while target.exists():
            target = folder / f"{path.stem}.{number}{path.suffix}"
            number += 1
        self._boundary("spool.before_move")
        path.replace(target)
        self._boundary("spool.after_move")
        logger.info("A spool file was read.", extra={"file": path.name, "events": events, "to": folder.name})


def _signature(path: Path) -> tuple[str, int, int, int]:
    stat = path.stat()
    return str(path), stat.st_ino, stat.st_mtime_ns, stat.st_size


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except KeyError:
        return str(path.stat().st_uid)


def _too_large(path: Path, name: str) -> Offer:
    message = f"{path.name} is larger than {MAX_FILE >> 20} MiB: split it; it is kept whole in rejected/."
    return refuse(Letter(text=b"", where=path.name, source=SOURCE, id=name), InputError("too_large", message))


def _letters(data: bytes, name: str, file: str, owner: str) -> "list[Letter | Offer]":
    """Return the texts in a file: the items of one JSON document, else its lines; an empty file is refused whole."""

    def letter(text: bytes, number: int) -> Letter:
        return Letter(text=text, where=f"{file}:{number}", source=SOURCE, id=f"{name}:{number}", by=owner)

    stripped = data.strip()
    if not stripped:
        return [refuse(letter(data, 1), InputError("empty", f"{file} is empty."))]
    if stripped.startswith(b"["):
        try:
            return [
                letter(bytes(item), i + 1)
                for i, item in enumerate(msgspec.json.decode(stripped, type=list[msgspec.Raw]))
            ]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return [letter(stripped, 1)]
    if b"\n" in stripped:
        try:
            msgspec.json.decode(stripped, type=msgspec.Raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        else:
            return [letter(stripped, 1)]
    return [letter(line, i + 1) for i, line in enumerate(data.splitlines()) if line.strip()]
