"""A process that forks for each line it reads: {"do": take or put, "paths": …, "at": boundary}; the child dies there.

The imports take a second; the forks take none.
"""

import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from daemon.backup.put import put
from daemon.backup.take import take
from stages.run_folder import OUTCOME  # noqa: F401 - loaded here, not in each child


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """What the child does, and the boundary (and how many of that name it passes) at which it is killed."""

    do: str
    paths: tuple[str, str, str]
    at: str
    after: int = 0


def killer(death: Death) -> Callable[[str], None]:
    """Return the boundary at which this process ends."""
    left = [death.after]

    def boundary(name: str) -> None:
        if name == death.at:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return boundary


def main() -> None:
    """Serve until the end of the input; one line of answer each: the wait status."""
    for line in sys.stdin.buffer:
        death = msgspec.json.decode(line, type=Death)
        child = os.fork()
        if child == 0:
            first, second, third = map(Path, death.paths)
            if death.do == "take":
                take(first, second, third, release="0", now=lambda: datetime.now(UTC), boundary=killer(death))
            else:
                put(first, second, third, boundary=killer(death))
            os._exit(0)
        sys.stdout.write(f"{os.waitpid(child, 0)[1]}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
