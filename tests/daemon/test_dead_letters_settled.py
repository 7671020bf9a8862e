"""Requests about dead letters that are settled once, or cannot be settled; and what the state counts."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.core.events import InputRejected, OperatorRequested
from daemon.core.state import dump
from daemon.door import MAX_BYTES, Answer, Input, Offer
from daemon.journal.base import digest, scan
from daemon.journal.memory import MemoryJournal
from tests.daemon.office import Office, arrival, asking


@pytest.mark.parametrize("first", ["retry", "drop"])
@pytest.mark.parametrize("second", ["retry", "drop"])
def test_a_dead_letter_is_settled_once(office: Office, first: str, second: str) -> None:
    """A second request is refused, naming the first; the same request again is a duplicate."""
    (answer,) = office.send(b"{")
    done = office.request(first, answer.position, "once")
    assert office.request(first, answer.position, "once") == Answer(outcome="duplicate", position=done.position)
    again = office.request(second, answer.position)
    assert (again.outcome, again.reason) == ("dead_letter", "resolved_already")
    assert f"at position {done.position} already" in again.message


def test_two_retries_in_one_transaction_settle_once(office: Office) -> None:
    """The second of a batch sees the first."""
    (answer,) = office.send(b"{")
    one, two = office.send(*(asking("retry", answer.position, identity) for identity in ("1", "2")))
    assert (one.outcome, two.reason) == ("accepted", "resolved_already")


def test_a_dead_letter_can_be_retried_in_its_own_transaction(office: Office) -> None:
    """What stands before the request in the batch is there for it."""
    position = office.journal.head() + 1
    bad, retry = office.send(b"{", asking("retry", position, "x"))
    assert (bad.position, retry.outcome) == (position, "accepted")


@pytest.mark.parametrize("position", [0, 1, 10**6, 2**53, 4])
@pytest.mark.parametrize("verb", ["retry", "drop"])
def test_what_is_no_dead_letter_cannot_be_settled(office: Office, verb: str, position: int) -> None:
    """Before the first, a fact, beyond the end, the request itself."""
    (office.root / "late").write_text("1")
    office.send(arrival(), arrival("late", "b"))
    answer = office.request(verb, position)
    assert (answer.outcome, answer.reason) == ("dead_letter", "unknown_dead_letter")


@pytest.mark.parametrize("position", [-1, 2**53 + 1, 2**70, 1.5, "7", True])
def test_a_position_that_is_none_is_wrong_data(office: Office, position: object) -> None:
    """Negative, huge, broken or a word."""
    assert office.request("retry", position, pipeline="p").reason == "wrong_data"


def test_a_drop_needs_a_position(office: Office) -> None:
    """It is about nothing else, and a retry without a position and a pipeline neither."""
    assert office.request("drop", None, pipeline="p").reason == "missing_dead_letter"
    assert office.request("drop", None).reason == "unknown_pipeline"
    assert office.request("retry", None).reason == "unknown_pipeline"


@pytest.mark.parametrize("text", [b"", b" \n", b"x" * (MAX_BYTES + 1)])
def test_what_is_not_there_whole_cannot_be_retried(office: Office, text: bytes) -> None:
    """An empty or truncated text stays a dead letter, which can be dropped."""
    (answer,) = office.send(text)
    retry = office.request("retry", answer.position)
    assert retry.reason == "not_retryable"
    assert "cannot be retried" in retry.message
    assert office.request("drop", answer.position).outcome == "accepted"


def test_a_stages_line_cannot_be_retried(office: Office) -> None:
    """An outcome counts where it was written, not where a person sends it."""
    where = "/rewarm/runs/p-1/train/1"
    bad = Offer(
        source="/rewarm/door",
        id=f"{where}#3",
        where=f"{where}:3",
        digest=digest(b"?"),
        pipeline="p",
        text=b"?",
        refusal=("bad_outcome_line", "No JSON."),
    )
    ((answer,),) = office.loop.commit([Input(offers=(bad,))]).answers
    assert office.request("retry", answer.position).reason == "not_retryable"


def test_a_retry_is_not_retried(office: Office) -> None:
    """One transaction reopens one letter, however they name each other."""
    (bad,) = office.send(b"{")
    (stranger,) = office.send(asking("retry", bad.position, "x"), by=None)
    assert stranger.reason == "not_an_operator"
    office.request("retry", stranger.position)
    again = office.at(office.settled(stranger.position).led_to).event
    assert isinstance(again, InputRejected)
    assert again.reason == "retry_of_a_retry"
    assert bad.position in office.open()
    (drop,) = office.send(asking("drop", bad.position, "y"), by=None)
    office.request("retry", drop.position)
    assert bad.position not in office.open()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["bad", "late", "again", "file", "retry", "drop", "restart"]), st.integers(0, 40)),
        max_size=40,
    )
)
def test_the_state_counts_the_open_ones(tmp_path: Path, steps: list[tuple[str, int]]) -> None:
    """Whatever is sent, retried and dropped in whatever order: counted is what a look at the whole journal finds."""
    office = Office(MemoryJournal(), tmp_path)
    (tmp_path / "late").unlink(missing_ok=True)
    for step, number in steps:
        _do(office, step, number)
        assert office.loop.state.dead_letters == len(office.open())
    requests = [r.event for r in scan(office.journal) if isinstance(r.event, OperatorRequested)]
    assert len({request.dead_letter for request in requests}) == len(requests)
    assert dump(office.folded()) == dump(office.loop.state)


def _do(office: Office, step: str, number: int) -> None:
    match step:
        case "bad":
            office.send(b"{" * (number % 3))
        case "late" | "again":
            office.send(*(arrival("late", str(number % 4), time=None) for _ in range(1 + (step == "again"))))
        case "file":
            (office.root / "late").write_text("1" * number)
        case "restart":
            office.mend(roots=(office.root,), pipelines=("p", "q") if number % 2 else ("q",))
        case _:
            pipeline = (None, "p", "q")[number % 3]
            office.request(step, number, str(number % 7) if number % 2 else None, pipeline=pipeline)
