"""What MLflow takes its copies from: it waits until they are made, where anything is recorded at all."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.core.events import ModelPromoted, RunSucceeded
from daemon.retention.history import History
from daemon.retention.rules import removals
from daemon.retention.sweep import recorded_upto
from daemon.settings import RetentionSettings
from ops.recording.cursor import write_hint

if TYPE_CHECKING:
    from tests.daemon.retention.conftest import Story


def test_what_mlflow_has_not_recorded_waits(story: "Story") -> None:
    """Curves and weights are copied from the folders: those of runs and versions beyond its position stay."""
    for _ in range(4):
        story.arrive()
        story.finish()
    story.now += timedelta(days=7)
    ends = [record.position for record in story.records if isinstance(record.event, RunSucceeded)]
    promotions = [record.position for record in story.records if isinstance(record.event, ModelPromoted)]
    history = History()
    history.read(story.journal)
    given = RetentionSettings(checkpoints=timedelta(days=1), runs=timedelta(days=7), models=0)

    def gone(recorded: int | None) -> list[str]:
        found = removals(story.state, history, story.now, given, recorded)
        return sorted(each.paths[0] for each in found if each.what != "checkpoints")

    assert gone(0) == []
    runs = [f"runs/{event.run}" for event in story.all(RunSucceeded)]
    assert gone(promotions[1] - 1) == runs[:1]
    assert gone(ends[1] - 1) == ["models/p/v2", *runs[:1]]
    assert gone(ends[1]) == ["models/p/v2", *sorted(runs[:2])]
    assert gone(ends[3]) == gone(None)
    assert len(gone(None)) == 5
    assert len(removals(story.state, history, story.now, given, 0)) == 4  # checkpoints: nobody copies those


def test_how_far_mlflow_is(tmp_path: Path) -> None:
    """Nothing is waited for where nothing is recorded; a store that is not there, or another's, has nothing."""
    assert recorded_upto(None, tmp_path, 10) is None
    assert recorded_upto("sqlite:///nowhere/mlflow.db", tmp_path, 10) == 0
    write_hint(tmp_path, 7)
    assert recorded_upto("http://mlflow.example", tmp_path, 10) == 7
    assert recorded_upto("http://mlflow.example", tmp_path, 6) == 0
