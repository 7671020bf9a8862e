"""What the demo delivers, and which of it the journal has already: an interrupted demo goes on where it was."""

import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from daemon.cli.demo import corpus
from daemon.core.events import DataArrived
from daemon.core.state import Pipeline
from daemon.journal.base import Reader

SOURCE: Final = "/demo/python-stdlib"
PAGE = 1000


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """An arrival that the demo delivers; `bytes` is the most text that it holds."""

    id: str
    bytes: int
    make: Callable[[Path, int], corpus.Corpus]


STEPS: Final = (
    Step(id="stdlib-prose-1", bytes=1_200_000, make=corpus.prose),
    Step(id="stdlib-code-2", bytes=800_000, make=corpus.code),
    Step(id="stdlib-tests-3", bytes=700_000, make=corpus.tests),
)
FIRST = 2
"""How many arrivals the first demo delivers: one to begin with, one to go on with."""


def library() -> Path:
    """Return where the standard library's source lies."""
    return Path(sysconfig.get_paths()["stdlib"])


def delivered(reader: Reader | None, pipeline: str) -> dict[str, int]:
    """Return the ids of the demo's arrivals that are recorded, with their positions."""
    found: dict[str, int] = {}
    after = 0
    while reader is not None and (page := reader.records(after, PAGE, kinds={DataArrived.kind}, pipeline=pipeline)):
        found |= {record.id: record.position for record in page if record.source == SOURCE}
        after = page[-1].position
    return found


def settled(pipeline: Pipeline) -> bool:
    """Return whether nothing more follows from what has arrived: a decision is recorded together with its fact."""
    return pipeline.active is None and pipeline.yielded is None and not pipeline.wishes


def goal(done: int, *, at_rest: bool) -> int:
    """Return how many arrivals shall have been delivered when this demo ends."""
    if done < FIRST:
        return FIRST
    return min(len(STEPS), done + 1) if at_rest else done
