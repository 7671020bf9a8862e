"""Dead letters through the loop: what follows from a retry, or a drop, in the transaction that records it."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from daemon import dead_letters
from daemon.core.errors import InputError
from daemon.core.events import DataArrived, InputRejected, Record
from daemon.dead_letters import Settled
from daemon.door import Input, Letter
from daemon.journal.base import scan
from tests.daemon.office import NOON, Office, arrival, asking, event


def test_a_retried_input_is_accepted_once_its_cause_is_mended(office: Office) -> None:
    """It comes in as it was sent, under its own name, with the retry as its cause; the dead letter is settled."""
    text = arrival()
    (answer,) = office.send(text)
    assert (answer.outcome, answer.reason) == ("dead_letter", "file_missing")
    (office.root / "late").write_text("12345")
    retry = office.request("retry", answer.position)
    assert retry.outcome == "accepted"
    settled = office.settled(answer.position)
    assert settled == Settled(outcome="accepted", position=retry.position, by="ann", led_to=settled.led_to)
    accepted = office.at(settled.led_to)
    assert (accepted.source, accepted.id, accepted.cause, accepted.text) == ("/test", "a", retry.position, text)
    assert isinstance(accepted.event, DataArrived)
    assert accepted.event.tokens == 5
    assert office.loop.state.dead_letters == 0
    assert office.loop.state.pipelines["p"].waiting == 5


def test_the_door_of_today_is_asked(office: Office, tmp_path: Path) -> None:
    """Roots and pipelines may have changed since: what was refused at the door comes in after a restart."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").write_text("1")
    office.mend(roots=(office.root,), pipelines=("q",))
    outside, unknown = office.send(arrival(str(tmp_path / "other" / "x"), subject="q"), arrival(identity="b"))
    assert (outside.reason, unknown.reason) == ("outside_roots", "unknown_pipeline")
    (office.root / "late").write_text("1")
    office.mend(roots=(office.root, tmp_path / "other"))
    for answer in (outside, unknown):
        office.request("retry", answer.position)
        assert office.settled(answer.position).outcome == "accepted"
    assert office.loop.state.pipelines["q"].waiting == office.loop.state.pipelines["p"].waiting == 1


@pytest.mark.parametrize("text", [b"{", arrival(), arrival(time="2099-01-01T00:00:00Z"), arrival(subject="r")])
def test_what_is_refused_again_is_a_dead_letter_of_its_own(office: Office, text: bytes) -> None:
    """Each retry settles the one before and leaves one open, with the text and the retry as its cause."""
    (answer,) = office.send(text)
    position, reason = answer.position, answer.reason
    for _ in range(3):
        retry = office.request("retry", position)
        settled = office.settled(position)
        assert (settled.outcome, settled.position) == ("refused", retry.position)
        again = office.at(settled.led_to)
        assert isinstance(again.event, InputRejected)
        assert (again.event.reason, again.cause, again.text) == (reason, retry.position, text)
        position = again.position
        assert office.open() == [position]
        assert office.loop.state.dead_letters == 1


def test_a_time_ahead_can_be_retried_when_it_has_come(office: Office) -> None:
    """The journal's clock judges anew."""
    (office.root / "late").write_text("1")
    (answer,) = office.send(arrival(time=(NOON + timedelta(days=3)).isoformat()))
    assert answer.reason == "time_in_future"
    office.now += timedelta(days=4)
    office.request("retry", answer.position)
    assert office.settled(answer.position).outcome == "accepted"


def test_what_came_in_meanwhile_counts_once(office: Office) -> None:
    """A producer that sent it again was faster: the retry settles the dead letter and adds nothing."""
    (answer,) = office.send(arrival())
    (office.root / "late").write_text("1")
    (accepted,) = office.send(arrival())
    office.request("retry", answer.position)
    assert office.settled(answer.position).outcome == "duplicate"
    arrived = [record.position for record in scan(office.journal) if isinstance(record.event, DataArrived)]
    assert arrived == [accepted.position]


def test_an_input_without_an_id_keeps_the_one_of_its_source(office: Office) -> None:
    """A line of a spool file is named by file and line: so is its retry, and the file that comes again."""
    text = json.dumps({"type": "data.arrived", "subject": "p", "data": {"uri": "late", "domain": "prose"}}).encode()
    (answer,) = office.send(text)
    (office.root / "late").write_text("1")
    office.request("retry", answer.position)
    accepted = office.at(office.settled(answer.position).led_to)
    assert (accepted.source, accepted.id) == ("/spool", "n1")


def test_an_input_that_nobody_named_is_refused_again(office: Office) -> None:
    """Where neither the event nor its source had an id, there is none at the retry either."""
    text = json.dumps({"type": "data.arrived", "subject": "p", "data": {"uri": "late", "domain": "prose"}}).encode()
    (answer,) = office.send(text, source="/http", ids=False)
    assert answer.reason == "missing_id"
    office.request("retry", answer.position)
    again = office.at(office.settled(answer.position).led_to).event
    assert isinstance(again, InputRejected)
    assert again.reason == "missing_id"


def test_a_retried_request_is_the_retriers(office: Office) -> None:
    """Who retries what somebody had no right to ask for asks for it."""
    text = event("operator.requested", {"verb": "pause"}, "x")
    (answer,) = office.send(text, by=None)
    assert answer.reason == "not_an_operator"
    office.request("retry", answer.position)
    assert office.loop.state.pipelines["p"].paused == "ann"


def test_a_dropped_input_stays_away(office: Office) -> None:
    """It is settled, kept, and nothing follows; the request may name a pipeline or none."""
    first, second = office.send(b"{", b"[")
    drop = office.request("drop", first.position)
    office.request("drop", second.position, pipeline="q")
    assert office.settled(first.position) == Settled(outcome="dropped", position=drop.position, by="ann")
    assert office.at(first.position).text == b"{"
    assert office.open() == []
    assert office.loop.state.dead_letters == 0


def test_letters_of_an_older_rewarm_can_be_retried(office: Office) -> None:
    """Their source and id are read off the record's own id."""
    text = json.dumps({"type": "data.arrived", "subject": "p", "data": {"uri": "late", "domain": "prose"}}).encode()
    record = Record(
        position=office.journal.head() + 1,
        recorded_at=NOON,
        source="/rewarm/door",
        id="/spool#abc:3",
        event=InputRejected(reason="unknown_pipeline", message="No.", where="f:3"),
        text=text,
    )
    with office.journal.transaction() as transaction:
        transaction.append([record])
    office.mend(roots=(office.root,))
    (office.root / "late").write_text("1")
    office.request("retry", record.position)
    accepted = office.at(office.settled(record.position).led_to)
    assert (accepted.source, accepted.id) == ("/spool", "abc:3")


def test_a_failed_transaction_settles_nothing(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Request, cursor and retried input are stored together or not at all; then the same request counts once."""
    (answer,) = office.send(arrival())
    (office.root / "late").write_text("1")
    before = office.journal.head()
    with monkeypatch.context() as patch:
        patch.setattr("daemon.work.Work.flush", lambda _: (_ for _ in ()).throw(InputError("x", "Killed.")))
        with pytest.raises(InputError):
            office.loop.commit([Input(offers=(office.door.receive(letter(asking("retry", answer.position, "r"))),))])
    assert (office.journal.head(), office.open()) == (before, [answer.position])
    for _ in range(2):
        office.mend(roots=(office.root,))
        office.request("retry", answer.position, "r")
    arrived = [record for record in scan(office.journal) if isinstance(record.event, DataArrived)]
    assert len(arrived) == 1


def letter(text: bytes) -> Letter:
    """Return a letter of a person."""
    return Letter(text=text, where="w", source="/spool", id="w", by="ann")


def test_binary_text_is_kept_and_retried_as_it_is(office: Office) -> None:
    """Bytes that are no text come back the same."""
    text = bytes(range(256))
    (answer,) = office.send(text)
    assert dead_letters.find(office.journal, answer.position).text == text
    office.request("retry", answer.position)
    assert office.at(office.settled(answer.position).led_to).text == text
