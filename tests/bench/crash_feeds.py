"""How facts come to a daemon that is killed: a ledger that knows each of them first, and files in a spool."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tests.bench.crash_counter import Sent, spooled, text_of


class Feed(Protocol):
    """A producer: what the daemon's configuration says of it, and what it has sent."""

    @property
    def sources(self) -> str:
        """The value of `sources` in the daemon's configuration."""

    def deliver(self, rng: random.Random) -> None:
        """Send something."""

    def delivered(self, journal: Path, state: Path) -> bool:
        """Return whether the daemon has taken in everything."""

    def sent(self) -> Sent:
        """Return what was sent, for the counter."""


class Ledger:
    """What a producer is about to send: one line a delivery, one entry an event, each with a serial number.

    `again` is the share of facts that are sent once more, `poison` that of what must not be accepted, of the
    `sorts` in turn.
    """

    def __init__(self, path: Path, *, again: float, poison: float, sorts: Sequence[str]) -> None:
        self.path = path
        self._again = again
        self._poison = poison
        self._sorts = sorts
        path.touch()
        self.lines = path.read_text(encoding="utf-8").splitlines()
        entries = [entry for line in self.lines for entry in line.split()[1:]]
        self._serial = max((int(entry.partition(":")[2]) for entry in entries), default=0)
        self._facts = [int(entry[5:]) for entry in entries[-100:] if entry.startswith("fact:")]

    def draw(self, rng: random.Random, count: int) -> list[str]:
        """Return entries that are not written yet."""
        return [self._entry(rng) for _ in range(count)]

    def write(self, name: str, entries: Sequence[str]) -> None:
        """Note a delivery, before it is made."""
        line = f"{name} {' '.join(entries)}"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
        self.lines.append(line)

    def _entry(self, rng: random.Random) -> str:
        chance = rng.random()
        if chance < self._again and self._facts:
            return f"again:{rng.choice(self._facts[-20:])}"
        self._serial += 1
        if chance < self._again + self._poison:
            return f"{self._sorts[self._serial % len(self._sorts)]}:{self._serial}"
        self._facts.append(self._serial)
        return f"fact:{self._serial}"


class SpoolFeed:
    """Renames files of new, repeated and malformed lines into a spool."""

    def __init__(self, folder: Path) -> None:
        self.sources = "[{kind: spool, path: spool}]"
        self._spool = folder / "spool"
        self._spool.mkdir(parents=True, exist_ok=True)
        self._ledger = Ledger(folder / "ledger", again=0.15, poison=0.05, sorts=("bad",))
        for path in self._spool.glob(".f*.jsonl"):  # the producer itself was interrupted
            if any(line.startswith(f"{path.name[1:]} ") for line in self._ledger.lines[-1:]):
                path.rename(self._spool / path.name[1:])
            else:
                path.unlink()

    def deliver(self, rng: random.Random) -> None:
        """Rename a file in, and now and then the same once more; the ledger knows it first."""
        entries = self._ledger.draw(rng, rng.randint(1, 3))
        self._rename_in(entries)
        if rng.random() < 0.05:
            self._rename_in(entries)

    def _rename_in(self, entries: Sequence[str]) -> None:
        name = f"f{len(self._ledger.lines) + 1:07d}.jsonl"
        hidden = self._spool / f".{name}"
        hidden.write_bytes(b"\n".join(map(text_of, entries)) + b"\n")
        self._ledger.write(name, entries)
        hidden.rename(self._spool / name)

    def delivered(self, journal: Path, state: Path) -> bool:
        """Return whether every file has left the spool."""
        return not any(path.is_file() and not path.name.startswith(".") for path in self._spool.iterdir())

    def sent(self) -> Sent:
        """Return what the ledger says."""
        return spooled(self._ledger.path)
