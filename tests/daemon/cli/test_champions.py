"""Which version was the champion when, on what evidence, and why it went."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from daemon.cli.champions import Reign, reigns, render
from daemon.cli.output import console
from daemon.core.events import RunCancelled
from daemon.journal.memory import MemoryJournal
from tests.golden.gate import frozen, watched
from tests.golden.tape import Tape

if TYPE_CHECKING:
    from tests.daemon.cli.conftest import Chronicle, Command

History = Callable[[], Tape]


def of(tape: Tape) -> list[Reign]:
    """Return the champions of a tape's pipeline."""
    journal = MemoryJournal()
    with journal.transaction() as transaction:
        transaction.append(tape.records)
    return list(reigns(journal.reader(), "p"))


def page(found: list[Reign], at: datetime | None = None) -> str:
    """Return what a person reads, its line breaks taken out."""
    out = console()
    with out.capture() as captured:
        for each in render("p", found, at):
            out.print(each)
    return " ".join(captured.get().split())


def test_every_reign_has_its_evidence() -> None:
    """One that is rolled back says by what, with the numbers; the one that comes back is there twice."""
    found = of(watched())
    assert [each.version for each in found] == [1, 2, 3, 2, 4]
    first, second, third, again, last = found
    assert [each.until for each in found[:-1]] == [each.since for each in found[1:]]
    assert last.until is None
    assert second.judgement is not None
    assert second.judgement.inputs["gain"] == 0.1
    assert second.fall == f"version 3 of run {third.run} was promoted"
    assert third.fell_by is not None
    assert (third.fell_by.policy, third.fell_by.inputs["worse"]) == ("promotion", 0.505)
    assert third.fall.startswith("Version 3 does worse than version 2")
    assert (again.run, again.judgement, again.rise) == (second.run, None, ("version 3 was rolled back",))
    assert first.past["prose"].arrivals == 1
    assert third.past["prose"].arrivals == 3
    assert last.past["prose"].arrivals == 3
    told = page(found)
    assert told.startswith(f"version 4: {last.since:%Y-%m-%d %H:%M:%S}Z to now")
    assert "worse 0.5050 (at most 0.0100)" in told


def test_who_let_it_through_is_told() -> None:
    """What was held for a freeze tells of its end; what a person approved, by whom and why."""
    first, second, third, fourth = of(frozen())
    assert first.rise == ()
    assert second.judgement is not None
    assert second.judgement.verdict == "hold"
    assert "frozen by ann: an incident" in second.judgement.reason
    (thaw,) = second.rise
    assert thaw.startswith("promotion, thawed: The freeze is over")
    assert third.rise[0].startswith("promotion, thawed: ")
    assert fourth.rise[0].startswith("approved by ann: it cannot wait (#")
    assert "approved by ann: it cannot wait" in page([fourth])


def test_a_person_rolls_back() -> None:
    """Its reason is told; there is no policy's decision behind it."""
    tape = frozen()
    tape.request("rollback", reason="complaints")
    withdrawn, back = of(tape)[-2:]
    assert (withdrawn.version, back.version, withdrawn.fell_by) == (4, 3, None)
    assert "complaints" in withdrawn.fall


def test_what_was_published_too_late_never_was_the_champion() -> None:
    """Its run ends as cancelled: the champion before goes on as if nothing had been."""
    tape = watched()
    champion = of(tape)[-1]
    tape.tell(RunCancelled(run=champion.run, reason="too late"))
    found = of(tape)
    assert [each.version for each in found] == [1, 2, 3, 2]
    assert (found[-1].until, found[-1].fall) == (None, "")


def test_the_command(rewarm: "Command", trained: "Chronicle") -> None:
    """It lists every champion, or the one of an instant, as text or JSON."""
    told = rewarm("champions", "docs-lm")
    assert told.code == 0
    assert "version 2: " in told.out
    assert "promotion, promote: The candidate keeps every bound." in told.out
    rows = json.loads(rewarm("champions", "docs-lm", "--json").out)
    assert [row["version"] for row in rows] == [1, 2]
    between = datetime.fromisoformat(rows[1]["since"]) - timedelta(microseconds=1)
    assert [
        r["version"] for r in json.loads(rewarm("champions", "docs-lm", "--at", between.isoformat(), "--json").out)
    ] == [1]
    before = rewarm("champions", "docs-lm", "--at", "2020-01-01")
    assert (before.code, before.out.strip()) == (0, "docs-lm had no champion at 2020-01-01 00:00:00Z.")
    assert trained.pipeline.champion is not None


@pytest.mark.parametrize(
    "arguments", [("nobody",), ("docs-lm", "--at", "yesterday"), ("docs-lm", "--at", "2026-03-01T12:00")]
)
def test_mistakes_are_told(rewarm: "Command", trained: "Chronicle", arguments: tuple[str, ...]) -> None:
    """An unknown pipeline, and what is no instant."""
    refused = rewarm("champions", *arguments)
    assert refused.code == 2
    assert "rewarm: " in refused.err


def test_before_the_first_champion(rewarm: "Command", chronicle: "Chronicle") -> None:
    """There is none, with a journal and without."""
    assert rewarm("champions", "docs-lm").out.strip() == "docs-lm had no champion yet."
    assert render("p", [], datetime(2026, 3, 1, tzinfo=UTC)) == ["p had no champion at 2026-03-01 00:00:00Z."]
