"""What the gate did, as MLflow tells it: who let a model through, what brought it back, what was refused."""

from pathlib import Path

from daemon.core.events import ModelPromoted, ModelRejected, ModelRolledBack
from daemon.journal.memory import MemoryJournal
from ops.recording.content import Batch
from ops.recording.effects import Recording
from ops.recording.history import History
from ops.recording.targets import run_target
from tests.golden.gate import frozen, vetoes, watched
from tests.golden.tape import Tape


def recorded(tape: Tape, folder: Path) -> Batch:
    """Return what all records of a tape bring."""
    journal = MemoryJournal()
    with journal.transaction() as transaction:
        transaction.append(tape.records)
    return Recording(History(journal.reader()), folder).batch(tape.records, 0)


def versions(tape: Tape) -> dict[int, str]:
    """Return the run of each version."""
    return {r.event.model_version: r.event.run for r in tape.records if isinstance(r.event, ModelPromoted)}


def test_a_rollback_by_a_policy(tmp_path: Path) -> None:
    """The run of the withdrawn version says why, by which policy; the alias goes back; the note has the numbers."""
    tape = watched()
    ((at, back),) = [(r.position, r.event) for r in tape.records if isinstance(r.event, ModelRolledBack)]
    batch = recorded(tape, tmp_path)
    tags = batch.contents[run_target("p", back.run)].tags
    assert tags["rewarm.reason"] == back.reason
    assert tags["rewarm.reason"].startswith("Version 3 does worse than version 2")
    assert (tags["rewarm.verdict"], tags["rewarm.decided_by"]) == ("rolled_back", "promotion")
    assert tags["rewarm.outcome"] == "rolled back"
    assert f"rolled back to version 2: {back.reason}" in tags["mlflow.note.content"]
    tape.records = [record for record in tape.records if record.position <= at]
    (models,) = recorded(tape, tmp_path).models
    promoted = versions(tape)
    assert (models.aliases["champion"], models.aliases["previous"]) == (promoted[2], None)


def test_a_promotion_says_why_although_it_is_watched(tmp_path: Path) -> None:
    """That the watch begins, or that the next run is due, is no reason of this run's."""
    tape = watched()
    tags = recorded(tape, tmp_path).contents[run_target("p", versions(tape)[2])].tags
    assert (tags["rewarm.verdict"], tags["rewarm.reason"]) == ("promote", "The candidate keeps every bound.")


def test_who_let_it_through_is_in_the_note(tmp_path: Path) -> None:
    """An approval with its reason, and the end of a freeze."""
    tape = frozen()
    promoted = versions(tape)
    contents = recorded(tape, tmp_path).contents
    notes = {version: contents[run_target("p", run)].tags["mlflow.note.content"] for version, run in promoted.items()}
    assert "taken up again at promote: The freeze is over" in notes[2]
    assert "Asked by ann: it cannot wait" in notes[4]


def test_an_accepted_arrival_leaves_the_refusal_as_it_was(tmp_path: Path) -> None:
    """The run that takes it afterwards has its own reason."""
    tape = vetoes()
    (rejected,) = [record.event for record in tape.records if isinstance(record.event, ModelRejected)]
    tape.request("accept", run=rejected.run, spans=rejected.spans, amounts=rejected.amounts)
    tape.finish()
    tags = recorded(tape, tmp_path).contents[run_target("p", rejected.run)].tags
    assert (tags["rewarm.verdict"], tags["rewarm.outcome"]) == ("reject", "rejected")
    assert tags["rewarm.reason"].startswith("Refused: prose is protected")
