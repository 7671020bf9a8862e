"""Who is champion in the registry, from the records alone."""

from datetime import UTC, datetime

from msgspec.structs import replace

from daemon.core.events import AnyEvent, ModelPromoted, ModelRolledBack, Record, RunCancelled
from daemon.core.plans import Checkpoint
from ops.recording.models import models

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SHA = "a" * 64


def promoted(version: int) -> ModelPromoted:
    """Make the promotion of a version by the run of that number."""
    return ModelPromoted(
        run=f"p-{version}",
        stage="promote",
        attempt=1,
        model_version=version,
        path=f"models/p/v{version}",
        sha256=SHA,
        trunk=Checkpoint(path="t", sha256=SHA),
        parent=None,
        spans=(),
        losses={},
    )


def aliases(*events: AnyEvent) -> dict[str, str | None]:
    """Return the aliases after these events."""
    records = [
        Record(position=n, recorded_at=NOON, source="s", id=str(n), pipeline="p", event=event)
        for n, event in enumerate(events, start=1)
    ]
    return dict(models("p", records).aliases)


def test_the_last_promoted_model_is_champion() -> None:
    """The one before it is previous."""
    assert aliases(promoted(1), promoted(2)) == {"champion": "p-2", "previous": "p-1", "candidate": None}


def test_a_promotion_that_came_too_late_does_not_count() -> None:
    """After a rollback the run that was under way is cancelled, even if its files were published meanwhile."""
    back = ModelRolledBack(run="p-2", withdrawn_version=2, model_version=1, path="x", sha256=SHA, reason="worse")
    late = (promoted(1), promoted(2), back, promoted(3), RunCancelled(run="p-3", reason="the champion changed"))
    assert aliases(*late) == {"champion": "p-1", "previous": None, "candidate": None}


def test_an_adopted_version_says_where_it_comes_from() -> None:
    """Its tags name the folder; a version that was trained here has no such tag."""
    adopted, trained = replace(promoted(1), adopted_from="/inbox/v3"), promoted(2)
    records = [
        Record(position=n, recorded_at=NOON, source="s", id=str(n), pipeline="p", event=event)
        for n, event in enumerate((adopted, trained), start=1)
    ]
    tags = [version.tags for version in models("p", records).versions]
    assert [each.get("rewarm.adopted_from") for each in tags] == ["/inbox/v3", None]
