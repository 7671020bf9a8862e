"""For tests and benches only: a daemon that kills itself at a named write boundary, and a stage that takes no time.

`python -m daemon.testing CONFIG [BOUNDARY COUNT]` serves like `rewarm serve`; at the COUNT-th passing of the
BOUNDARY it is killed by SIGKILL.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from daemon.app import serve
from daemon.config import load
from daemon.core.errors import RewarmError
from stages.base import Context, Result

BOUNDARIES = (
    "journal.before_commit",
    "journal.after_commit",
    "snapshot.before",
    "snapshot.after",
    "spool.before_move",
    "spool.after_move",
    "dispatch.before_place",
    "dispatch.before_send",
    "dispatch.after_send",
    "outcome.after_read",
    "dispatch.before_bury",
    "dispatch.after_bury",
)


def killer(boundary: str, count: int) -> Callable[[str], None]:
    """Return a boundary function that kills this process at the `count`-th passing of `boundary`."""
    left = {boundary: count}

    def pass_by(name: str) -> None:
        if name in left:
            left[name] -= 1
            if left[name] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return pass_by


class NoteStage:
    """Notes its start and its end in `<state>/starts` and `<state>/effects`, one line of the command's id each."""

    def run(self, context: Context) -> Result:
        """Append the notes; nothing else."""
        specification = context.specification
        state = Path(specification.state)
        attempt = f"{specification.run}/{specification.stage}/{specification.attempt}"
        line = f"{specification.command} {attempt} {time.time_ns()}\n"
        append(state / "starts", line)
        context.beat(1, 1)
        append(state / "effects", line)
        return Result()


def append(path: Path, line: str) -> None:
    """Append one line in one write, durably."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main(arguments: list[str]) -> int:
    """Serve, and die where asked."""
    configuration = load(Path(arguments[0]))
    try:
        if len(arguments) > 1:
            return serve(configuration, boundary=killer(arguments[1], int(arguments[2])))
        return serve(configuration)
    except RewarmError as error:
        sys.stderr.write(f"{error}\n")
        return 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
