"""What most commands begin with: the configuration, the journal if there is one, and who writes it."""

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from daemon.config import Configuration, load
from daemon.core.errors import RewarmError
from daemon.journal.lock import lock_path, locked_by, standby_path
from daemon.journal.sqlite import SqliteReader, open_reader

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse has no public name for it


class Daemon(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a daemon writes the journal, and which process it is."""

    running: bool
    pid: int | None = None
    host: str | None = None


def configured(arguments: argparse.Namespace) -> Configuration:
    """Return the configuration that `--config`, the environment and the known places give."""
    return load(arguments.config)


@contextlib.contextmanager
def reading(configuration: Configuration) -> Iterator[SqliteReader]:
    """Yield a reader of the journal; raises JournalError when there is none."""
    with open_reader(configuration.journal) as reader:
        yield reader


@contextlib.contextmanager
def perhaps_reading(configuration: Configuration) -> Iterator[SqliteReader | None]:
    """Yield a reader of the journal, or None while there is no journal."""
    if not configuration.journal.exists():
        yield None
        return
    with open_reader(configuration.journal) as reader:
        yield reader


def find_daemon(journal: Path) -> Daemon:
    """Return who writes the journal. Only the kernel's lock counts: a dead daemon's file says nothing."""
    return _found(lock_path(journal))


def find_standby(journal: Path) -> Daemon:
    """Return who waits to write the journal: of several standbys the first."""
    return _found(standby_path(journal))


def _found(lock: Path) -> Daemon:
    who = locked_by(lock)
    return Daemon(running=False) if who is None else Daemon(running=True, pid=who.pid or None, host=who.host or None)


def pipeline_named(configuration: Configuration, name: str) -> str:
    """Return the name when such a pipeline is configured; raises RewarmError naming the known ones."""
    known = configuration.settings.pipelines
    if name in known:
        return name
    listed = ", ".join(known) or "none; add one to `pipelines` in rewarm.yaml"
    raise RewarmError(f"There is no pipeline {name!r}. Configured: {listed}.")
