"""What a stage is, what it is given, and how an attempt is carried out."""

import importlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypedDict, cast

import msgspec

from daemon.core.errors import StageError
from daemon.core.events import AnyEvent, Artefact, StageProgressed
from stages import STAGES
from stages.run_folder import Outcome, Specification

PROGRESS_SECONDS = 5.0


class Stopped(Exception):
    """Raised in a stage by `Context.beat` when somebody asked it to stop; it saves a checkpoint and lets it pass."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"asked to stop: {reason}")
        self.reason = reason


class Names(TypedDict):
    """The fields that every stage event carries."""

    run: str
    stage: str
    attempt: int


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a stage returns: numbers for people, and the files that it leaves."""

    metrics: dict[str, float] = {}
    artefacts: tuple[Artefact, ...] = ()


class Context:
    """A stage's hands: its specification, its folder, and the only ways to tell anything."""

    def __init__(
        self, specification: Specification, folder: Path, outcome: Outcome, clock: Callable[[], float]
    ) -> None:
        self.specification = specification
        self.folder = folder
        self._outcome = outcome
        self._clock = clock
        self._began = clock()
        self._progressed = clock()
        self._touched = 0.0
        self._curve: list[bytes] = []
        (folder / "heartbeat").touch()

    @property
    def names(self) -> Names:
        """Run, stage and attempt: the fields that every stage event carries."""
        s = self.specification
        return {"run": s.run, "stage": s.stage, "attempt": s.attempt}

    def emit(self, event: AnyEvent) -> None:
        """Append a fact to the outcome file, durably."""
        self._outcome.write(event)

    def beat(self, step: int, steps: int, metrics: dict[str, float] | None = None) -> None:
        """Say that the stage lives and how far it is; call it at least every few seconds.

        Raises Stopped when asked to stop and StageError (time_limit) past the limit. Re-arms the kernel's
        alarm: a stage that hangs for `limits.heartbeat` seconds is killed by SIGALRM, with nobody watching.
        """
        self.live()
        now = self._clock()
        if now - self._progressed >= PROGRESS_SECONDS:
            self._progressed = now
            self._outcome.write(
                StageProgressed(**self.names, step=step, steps=steps, metrics=metrics or {}), durable=False
            )
            self.flush_curve()
        self.obey()

    def live(self) -> None:
        """Say that the stage lives, where it cannot stop: between parts that take long and tell nothing."""
        now = self._clock()
        if now - self._touched >= 1.0:
            self._touched = now
            os.utime(self.folder / "heartbeat")
            signal.setitimer(signal.ITIMER_REAL, self.specification.plan.limits.heartbeat)

    def obey(self) -> None:
        """Raise Stopped when asked to stop and StageError (time_limit) past the limit."""
        stop = self.folder / "stop"
        if stop.exists():
            raise Stopped(stop.read_text().strip() or "cancel")
        limit = self.specification.plan.limits.time_limit
        if self._clock() - self._began > limit:
            message = f"The stage ran longer than its limit of {limit:g} s: raise `time_limit`."
            raise StageError("time_limit", message)

    def curve(self, step: int, values: dict[str, float]) -> None:
        """Add a point to the training curves in metrics.jsonl (written every few seconds)."""
        self._curve.append(msgspec.json.encode({"step": step, "time": time.time(), **values}) + b"\n")

    def flush_curve(self) -> None:
        """Write the pending points of the training curves."""
        with (self.folder / "metrics.jsonl").open("ab") as file:
            file.write(b"".join(self._curve))
        self._curve.clear()

    def state_path(self, path: Path) -> str:
        """Return a path relative to the state folder, as events name files."""
        return str(path.resolve().relative_to(Path(self.specification.state).resolve()))

    def resolve(self, path: str) -> Path:
        """Return the file that a state-relative path names."""
        return Path(self.specification.state) / path


class Stage(Protocol):
    """One step of a run. The same attempt may be started twice; the lock lets one through."""

    def run(self, context: Context) -> Result:
        """Do the work; raise StageError with a failure class when it cannot be done."""


def implementation(name: str) -> str:
    """Return "module:Class" for a stage's name, or the name itself when it is one."""
    return STAGES.get(name, name)


def load(name: str) -> Stage:
    """Import a stage; raises StageError (user_error) when there is none of that name."""
    module, _, attribute = implementation(name).partition(":")
    try:
        return cast("Stage", getattr(importlib.import_module(module), attribute)())
    except (ImportError, AttributeError, ValueError) as error:
        message = (
            f"Stage {name!r} cannot be loaded ({error}); known stages: {', '.join(STAGES)}, or 'package.module:Class'."
        )
        raise StageError("user_error", message) from error
