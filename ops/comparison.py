"""Is everything in MLflow that the journal says? Counted for `status`, read back and compared for `doctor`."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from daemon.core.errors import EventError
from daemon.core.events import Record
from daemon.journal.base import Reader, scan
from ops.recording import segments
from ops.recording.cursor import CURSOR, read_cursor, sqlite_file
from ops.recording.history import History
from ops.recording.segments import Transition
from ops.recording.targets import HOME, target_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXAMPLES = 20


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Transitions of the journal against those in MLflow.

    `recorded` of `transitions` are there and the same; `missing` are not there though the recorder has passed
    them; `differing` are there with another content or at another place; `behind` are not recorded yet.
    `examples` are positions of the first missing or differing ones.
    """

    transitions: int
    recorded: int
    missing: int
    differing: int
    behind: int
    examples: tuple[int, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether everything that the recorder has passed is there as the journal says it."""
        return not self.missing and not self.differing


def behind(head: int, tracking_uri: str, state: Path) -> int | None:
    """Return how many records MLflow has not yet, None while there is no store. Never imports MLflow.

    Negative: the store has seen more than this journal holds, so it belongs to another one.
    """
    cursor = read_cursor(tracking_uri, state)
    return None if cursor is None else head - cursor


def compare(reader: Reader, tracking_uri: str) -> Comparison:
    """Read every segment back from MLflow and compare it with the journal, record by record.

    Raises what MLflow raises when it does not answer.
    """
    head = reader.head()
    file = sqlite_file(tracking_uri)
    if file is not None and not file.is_file():
        return Comparison(transitions=head, recorded=0, missing=0, differing=0, behind=head)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri)
    cursor = min(head, _cursor(client))
    kept, torn = _read_back(client, cursor)
    history = History(reader)
    recorded, missing, differing, seen = 0, 0, torn, 0
    examples: list[int] = []
    for record in scan(reader, upto=head):
        seen += 1
        found = kept.pop(record.position, None)
        if found is None and record.position > cursor:
            continue
        target = target_of(record, history.started)
        if found is not None and found[0] == (target.experiment, target.key) and _same(found[1], record):
            recorded += 1
            continue
        if record.position > cursor:
            continue  # being written at this moment
        missing += found is None
        differing += found is not None
        if len(examples) < EXAMPLES:
            examples.append(record.position)
    foreign = [position for position in kept if position <= head]
    return Comparison(
        transitions=seen,
        recorded=recorded,
        missing=missing,
        differing=differing + len(foreign),
        behind=head - cursor,
        examples=tuple(examples),
    )


def _cursor(client: "MlflowClient") -> int:
    home = client.get_experiment_by_name(HOME)
    return int(home.tags.get(CURSOR, "0")) if home is not None else 0


Kept = dict[int, tuple[tuple[str, str], Transition]]
"""Position → (experiment, run) and what is kept there."""


def _read_back(client: "MlflowClient", cursor: int) -> tuple[Kept, int]:
    """Return all transitions in the store, and how many segments that should be whole cannot be read."""
    from ops.recording.store import RUN_ID, every_run

    kept: Kept = {}
    torn = 0
    oldest: dict[tuple[str, str], Run] = {}
    names = {experiment.experiment_id: experiment.name for experiment in client.search_experiments()}
    for run in every_run(client):
        key = (names[run.info.experiment_id], run.data.tags[RUN_ID])
        standing = oldest.get(key)
        if standing is None or _age(run) < _age(standing):
            oldest[key] = run
    for key, run in oldest.items():
        for name, data in _segments(client, run):
            try:
                kept.update((one.position, (key, one)) for one in segments.read(data))
            except msgspec.MsgspecError:
                torn += int(name.partition("-")[0]) <= cursor
    return kept, torn


def _age(run: "Run") -> tuple[int, str]:
    return run.info.start_time, run.info.run_id


def _segments(client: "MlflowClient", run: "Run") -> Iterator[tuple[str, bytes]]:
    if not client.list_artifacts(run.info.run_id, segments.FOLDER):
        return
    with tempfile.TemporaryDirectory(prefix="rewarm-compare-") as folder:
        local = Path(client.download_artifacts(run.info.run_id, segments.FOLDER, folder))
        for path in sorted(local.glob("*.json")):
            yield path.name, path.read_bytes()


def _same(kept: Transition, record: Record) -> bool:
    try:
        return segments.same(kept, record)
    except EventError:
        return False
