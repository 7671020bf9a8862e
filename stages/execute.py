"""Carry out one attempt in this process: take the lock, run the stage, write the terminal line."""

import errno
import logging
import os
import signal
import socket
import time
from pathlib import Path

from daemon.core.errors import FailureClass, StageError
from daemon.core.events import AnyEvent, StageFailed, StageInterrupted, StageStarted, StageSucceeded
from stages.base import Context, Stopped, load
from stages.run_folder import Outcome, finished, hold, read_specification, sign

LOCK_PATIENCE = 1.0
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
PASSING = frozenset({errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EBUSY, errno.ENOTEMPTY})
"""What a disk, a network file system or another process may do to us, and what may be gone the next time."""
logger = logging.getLogger("rewarm.stage")


def execute(folder: Path) -> bool:
    """Run the attempt in `folder`; returns False when it is another process's or finished already.

    Everything that goes wrong becomes a `stage.failed` line with a failure class; nothing is raised but what
    makes that line itself impossible (a full disk).
    """
    with hold(folder, patience=LOCK_PATIENCE) as mine:
        if not mine or finished(folder):
            return False
        sign(folder)
        specification = read_specification(folder)
        outcome = Outcome(folder)
        names = {"run": specification.run, "stage": specification.stage, "attempt": specification.attempt}
        outcome.write(
            StageStarted(
                run=specification.run,
                stage=specification.stage,
                attempt=specification.attempt,
                command=specification.command,
                host=socket.gethostname(),
                pid=os.getpid(),
            ),
            durable=False,
        )
        signal.setitimer(signal.ITIMER_REAL, specification.plan.limits.heartbeat)
        logger.info("Stage started.", extra={**names, "command": specification.command})
        terminal = _attempt(Context(specification, folder, outcome, time.monotonic))
        signal.setitimer(signal.ITIMER_REAL, 0)
        outcome.write(terminal)
        outcome.close()
        logger.info("Stage ended.", extra={**names, "kind": terminal.kind})
        return True


def _attempt(context: Context) -> AnyEvent:
    began = time.monotonic()
    try:
        result = load(context.specification.implementation).run(context)
        context.flush_curve()
    except Stopped as stop:
        reason = stop.reason
        known = reason if reason in {"cancel", "preempt", "drain"} else "cancel"
        return StageInterrupted(**context.names, reason=known, message="" if known == reason else str(stop))  # type: ignore[arg-type]
    except Exception as error:
        logger.exception("Stage failed.", extra=dict(context.names))
        # Our own errors are sentences for people; a name belongs to those of others.
        if isinstance(error, StageError):
            place = {"step": error.step, "documents": error.documents}
            return StageFailed(**context.names, failure=error.failure, message=str(error)[:4000], **place)  # type: ignore[arg-type]
        message = f"{type(error).__name__}: {error}"
        return StageFailed(**context.names, failure=classify(error), message=message[:4000])
    return StageSucceeded(
        **context.names,
        seconds=round(time.monotonic() - began, 3),
        metrics=result.metrics,
        artefacts=result.artefacts,
    )


def classify(error: Exception) -> FailureClass:
    """Return the failure class of an exception: what recovery policies decide by."""
    match error:
        case StageError():
            return error.failure
        case OSError() if error.errno in DISK_FULL:
            return "disk_full"
        case OSError() if error.errno in PASSING:
            return "transient"
        case ConnectionError() | TimeoutError() | InterruptedError():
            return "transient"
        case MemoryError():
            return "out_of_memory"
        case FloatingPointError():
            return "not_finite"
        case _ if type(error).__name__ == "OutOfMemoryError":
            return "out_of_memory"  # torch.cuda's, without importing torch here
        case RuntimeError() if "DefaultCPUAllocator" in str(error):
            return "out_of_memory"  # torch's of the processor has no class of its own
        case _ if "No space left on device" in str(error):
            return "disk_full"  # safetensors wraps the system's error in its own
        case _:
            return "user_error"
