"""What belongs into a backup: what the state at the copied position needs to go on, and nothing else."""

from collections.abc import Iterable
from datetime import timedelta

import msgspec
from msgspec.structs import replace

from daemon.core.state import Run, State
from daemon.journal.base import Reader
from daemon.retention.history import History
from daemon.retention.rules import checkpoints, living, removals
from daemon.settings import RetentionSettings

CENTURY = timedelta(days=36_525)


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt of a living run, and how many lines of its outcome file the journal has read."""

    run: str
    stage: str
    number: int
    lines: int


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """Paths that count from the state folder.

    `checkpoints` maps folders of weights to the sha256 that the journal knows them by; `shards` are folders too.
    Of `ended` runs nothing is needed but their training curves, which MLflow is filled from.
    """

    checkpoints: dict[str, str]
    shards: tuple[str, ...]
    attempts: tuple[Attempt, ...]
    ended: tuple[str, ...]


def contents(reader: Reader, state: State) -> Contents:
    """Return what the state needs; `reader` reads the journal that it was folded from, and no newer one.

    That is: champion, previous and base with the trunks behind them, what living runs (active, yielded, held)
    started from and what their attempts have told, and each shard that a model was or may still be trained on.
    """
    history = History()
    history.read(reader)
    pipelines = state.pipelines.values()
    return Contents(
        checkpoints={each.path: each.sha256 for pipeline in pipelines for each in checkpoints(pipeline)},
        shards=tuple(sorted(set(history.uses) - _dispensable(state, history))),
        attempts=tuple(each for pipeline in pipelines for run in living(pipeline) for each in _attempts(reader, run)),
        ended=tuple(sorted(set(history.runs) - {run.run for pipeline in pipelines for run in living(pipeline)})),
    )


def _dispensable(state: State, history: History) -> set[str]:
    """Return the shards that the strictest retention would let go."""
    if state.recorded_at is None:
        return set()
    later = state.recorded_at + CENTURY
    # Retention waits while a run ingests, for that run might find a shard and use it; if not, it makes it anew.
    pipelines = {
        name: replace(pipeline, active=pipeline.active and replace(pipeline.active, stage="train"))
        for name, pipeline in state.pipelines.items()
    }
    state = replace(state, pipelines=pipelines)
    strict = RetentionSettings(checkpoints=None, shards=timedelta(microseconds=1))
    found = removals(state, history, later, strict)
    return {path for removal in found for path in removal.paths}


def _attempts(reader: Reader, run: Run) -> Iterable[Attempt]:
    """Yield what the state knows of: a later attempt, begun after the copy, would belong to another history.

    One without a line is dispatched anew, with a specification of its own.
    """
    for stage, ordered in run.attempts.items():
        for number in range(1, ordered + 1):
            read = reader.cursor(f"outcome:{run.run}/{stage}/{number}")
            if read:
                yield Attempt(run=run.run, stage=stage, number=number, lines=read)
