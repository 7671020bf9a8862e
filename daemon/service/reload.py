"""A running daemon's configuration file, read again: what it takes at once, and what only a restart can change."""

import logging
from collections.abc import Iterable, Iterator

from msgspec.structs import replace
from pydantic import BaseModel

from daemon.config import Configuration, load
from daemon.core.errors import ConfigurationError
from daemon.work import Reconfigured

AT_ONCE = frozenset({"pipelines", "executor.slots"})
"""What `configuration.changed` tells: policies and the fold depend on it. All else was handed out at the start."""
logger = logging.getLogger("rewarm.daemon")


class Reload:
    """Reads the file again, and lets the doors know the pipelines that it names.

    `pipelines` are those known at the doors of this process: other threads look names up in it, so it is never empty
    on its way from one content to the next.
    """

    def __init__(self, started: Configuration) -> None:
        self.configuration = started
        self.pipelines: dict[str, object] = dict.fromkeys(started.settings.pipelines)

    def read(self) -> Reconfigured:
        """Return what the file says now. Raises ConfigurationError, told in the log: then nothing is changed."""
        return self._read()[1]

    def catch_up(self) -> Configuration:
        """Return the configuration for a daemon that has stood by: the file may be another one than at its start."""
        try:
            taken, found = self._read()
        except ConfigurationError:
            return self.configuration
        self._know(found.policies)
        return taken

    def took(self, found: Reconfigured) -> None:
        """Let the doors know the pipelines, now that they stand in the journal; tell it all in the log."""
        self._know(found.policies)
        names = {"hash": found.changed.hash[:12], "pipelines": ", ".join(found.policies)}
        logger.info("The configuration file was read again.", extra=names)
        if found.needs_restart:
            keys = ", ".join(found.needs_restart)
            logger.warning(
                "These keys of the configuration file need a restart; they are as they were.", extra={"keys": keys}
            )

    def _know(self, pipelines: Iterable[str]) -> None:
        known = dict.fromkeys(pipelines)
        self.pipelines.update(known)
        for name in [name for name in self.pipelines if name not in known]:
            del self.pipelines[name]

    def _read(self) -> tuple[Configuration, Reconfigured]:
        try:
            file = load(self.configuration.file)
            taken = taking(self.configuration, file)
            found = Reconfigured(
                changed=taken.changed(),
                policies={name: pipeline.policies for name, pipeline in taken.settings.pipelines.items()},
                needs_restart=tuple(needs_restart(self.configuration, file)),
            )
        except Exception as error:  # a user's policy may raise anything
            logger.warning(
                "The configuration file cannot be used: the daemon keeps the configuration that it has.",
                extra={"error": str(error)},
            )
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError(f"{self.configuration.file}: {type(error).__name__}: {error}.") from error
        return taken, found


def taking(started: Configuration, found: Configuration) -> Configuration:
    """Return the configuration that a daemon was started with, with all of another one that needs no restart."""
    executor = started.settings.executor.model_copy(update={"slots": found.settings.executor.slots})
    update = {"pipelines": found.settings.pipelines, "executor": executor}
    return replace(started, settings=started.settings.model_copy(update=update))


def needs_restart(started: Configuration, found: Configuration) -> Iterator[str]:
    """Yield the keys in which two configurations differ, of those that cannot change while a daemon runs."""
    for key in type(started.settings).model_fields:
        before, after = getattr(started.settings, key), getattr(found.settings, key)
        if isinstance(before, BaseModel) and isinstance(after, BaseModel):
            inner = type(before).model_fields
            names = [f"{key}.{name}" for name in inner if getattr(before, name) != getattr(after, name)]
        else:
            names = [key] if before != after else []
        yield from (name for name in names if name not in AT_ONCE)
