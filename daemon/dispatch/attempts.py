"""Attempts as they lie on disk: what state they are in, how to stop them, how to bury the dead."""

import contextlib
import logging
import signal
import time
from pathlib import Path

import msgspec

from daemon.core.events import InterruptReason, StageInterrupted
from daemon.core.plans import Limits
from daemon.files import write_atomically
from daemon.pids import boot_id, namespace
from stages.run_folder import (
    Outcome,
    finished,
    held,
    hold,
    holder,
    kill_session,
    lines,
)

STOP_GRACE = 120.0
logger = logging.getLogger("rewarm.dispatch")


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker saw when its child ended (exit.json)."""

    pid: int
    code: int | None
    signal: int | None


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """What can be seen of an attempt."""

    placed: bool
    held: bool
    started: bool
    finished: bool
    exit: Exit | None
    silent_for: float


def look(folder: Path, now: float) -> Attempt:
    """Return what an attempt's folder shows; `now` is the wall clock in seconds.

    The lock is looked at first: a stage that ends in between has written its terminal line before.
    """
    is_held = held(folder)
    beat = 0.0
    with contextlib.suppress(OSError):
        beat = max(0.0, now - (folder / "heartbeat").stat().st_mtime)
    return Attempt(
        placed=(folder / "spec.json").exists(),
        held=is_held,
        started=bool(lines(folder)),
        finished=finished(folder),
        exit=read_exit(folder),
        silent_for=beat,
    )


def read_exit(folder: Path) -> Exit | None:
    """Return how the attempt's process ended, if the worker saw it."""
    try:
        return msgspec.json.decode((folder / "exit.json").read_bytes(), type=Exit)
    except (OSError, msgspec.MsgspecError):
        return None


def ask_to_stop(folder: Path, reason: str) -> None:
    """Ask a living attempt to save a checkpoint and end."""
    if not (folder / "stop").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "stop", reason.encode())


def asked_to_stop(folder: Path) -> str | None:
    """Return why an attempt was asked to stop, None when it was not."""
    try:
        return (folder / "stop").read_text(encoding="utf-8").strip()
    except OSError:
        return None


def overdue(folder: Path, attempt: Attempt, limits: Limits, now: float) -> str | None:
    """Return why a living attempt must be killed from outside: it is stopped or hung, or will not stop.

    The kernel's own alarm ends a hanging stage first; this heals what an alarm cannot (a stopped process).
    """
    if attempt.silent_for > 2 * limits.heartbeat:
        return "hang"
    with contextlib.suppress(OSError):
        if now - (folder / "stop").stat().st_mtime > STOP_GRACE:
            return "will not stop"
    return None


def kill(folder: Path) -> None:
    """Kill everything that an attempt started."""
    who = holder(folder)
    if who is not None:
        kill_session(who)


def out_of_reach(folder: Path) -> str | None:
    """Return why whoever holds an attempt's lock cannot be killed from here; None when it can."""
    who = holder(folder)
    if who is None:
        return "its lock file does not say whose it is"
    if who.boot_id != boot_id():
        return f"its process {who.pid} runs on another machine"
    if who.namespace != namespace():
        return f"its process {who.pid} runs in another container"
    return None


def bury(
    folder: Path, run: str, stage: str, attempt: int, reason: str | None = None, *, lost: str | None = None
) -> bool:
    """End a dead attempt: its session is killed, and `stage.interrupted` becomes its terminal line.

    Whoever buries holds the lock, so that no late starter can begin what is over. Returns False when the
    attempt lives or has ended by itself. A stop that was asked for (`reason`) goes before the class of failure as
    which it was reported (`lost`), and that before how the process ended.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with hold(folder) as mine:
        if not mine or finished(folder):
            return False
        kill(folder)
        died = read_exit(folder)
        word, message = _cause(died)
        if reason is not None:
            began = died is not None or bool(lines(folder))
            word, message = reason, f"It was asked to stop. {message}" if began else "It was stopped before it ran."
        elif lost:
            word, message = lost, f"It was reported as {lost}, and its process is gone."
        else:
            went = died is None or died.signal in {signal.SIGKILL, signal.SIGTERM}
            if went and asked_to_stop(folder) == "drain":  # its machine went before it had stopped: not its fault
                word, message = "drain", f"A drain was not waited for. {message}"
        outcome = Outcome(folder)
        outcome.write(StageInterrupted(run=run, stage=stage, attempt=attempt, reason=_known(word), message=message))
        outcome.close()
    logger.warning("An attempt was buried.", extra={"run": run, "stage": stage, "attempt": attempt, "why": message})
    return True


def _cause(died: Exit | None) -> tuple[str, str]:
    if died is None:
        return "died", "Its process is gone, and so is the worker that could tell how."
    if died.signal == signal.SIGALRM:
        return "hang", "It gave no sign of life within its heartbeat limit and was ended by SIGALRM."
    if died.signal is not None:
        return "died", f"Its process was ended by {signal.Signals(died.signal).name}."
    return "died", f"Its process ended with exit code {died.code}."


def _known(word: str) -> InterruptReason:
    match word:
        case "cancel" | "preempt" | "drain" | "hang":
            return word
        case _:
            return "died"


def wall_clock() -> float:
    """Return the time by which file times are told."""
    return time.time()
