"""Answers of somebody's own policy that cannot be kept: they become a decision that says so, and stop nobody."""

from datetime import UTC, datetime, timedelta

import pytest

from daemon.core.commands import StartRun, WithdrawWish
from daemon.core.decisions import Decision
from daemon.core.encoding import decode, encode
from daemon.core.events import DecisionMade, Record
from daemon.core.plans import Intent
from daemon.core.state import Pipeline
from policies.base import BasePolicy, TrainingSettings
from tests.golden.tape import Tape


class Wild(BasePolicy):
    """Answers as it is told."""

    how: str

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Return something that is no decision, or one that nobody can keep."""
        if self.how == "leaves":
            raise SystemExit(3)
        if self.how == "text":
            return "train"  # type: ignore[return-value]
        if self.how == "local time":
            return Decision(verdict="wild", reason="It is.", wakes={"a": datetime(2030, 1, 1)})  # noqa: DTZ001
        if self.how == "no number":
            return Decision(verdict="wild", reason="It is.", inputs={"a": {1, 2}})  # type: ignore[dict-item]
        if self.how == "no verdict":
            return Decision(verdict=3, reason="It is.")  # type: ignore[arg-type]
        if self.how == "no intent":
            return Decision(verdict="wild", reason="It is.", commands=(StartRun(intent=None),))  # type: ignore[arg-type]
        training = TrainingSettings()
        intent = Intent(
            kind="base", start="scratch", training=training.training(training.schedule("rewarm", first=True), 0.0)
        )
        return Decision(verdict="wild", reason="It is.", commands=(StartRun(intent=intent), WithdrawWish()))


class Hasty(BasePolicy):
    """Asks to be woken at once, always, and has a number that is none."""

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Return a decision with wake-ups that are due already, and one that is not."""
        wakes = {
            "a": record.recorded_at,
            "b": record.recorded_at - timedelta(days=1),
            "c": datetime(2030, 1, 1, tzinfo=UTC),
        }
        return Decision(verdict="hasty", reason="It is.", inputs={"a": float("nan")}, wakes=wakes)


def tape(policy: str) -> Tape:
    """Start a daemon in which this policy stands beside one that works."""
    made = Tape(
        "pipelines: {p: {policies: [{kind: custom, "
        f"class: 'tests.policies.test_custom_answers:{policy}}}, "
        "{kind: rewarm_replay, after_tokens: 100}, {kind: promotion}]}}"
    )
    made.arrive(120)
    made.finish()
    return made


def said(tape: Tape, policy: str) -> list[DecisionMade]:
    """Return what a policy said, all of which comes back from the journal as it is."""
    for record in tape.records:
        assert decode(record.event.kind, record.event.version, encode(record.event)) == record.event
    return [r.event for r in tape.records if isinstance(r.event, DecisionMade) and r.event.policy == policy]


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("leaves", "would end the process"),
        ("text", "answered str"),
        ("local time", "cannot be kept"),
        ("no number", "cannot be kept"),
        ("no verdict", "cannot be kept"),
        ("no intent", "cannot be kept"),
        ("two minds", "carries no other command"),
    ],
)
def test_what_cannot_be_kept_is_told(how: str, why: str) -> None:
    """The policy is named with what it did, and everybody else goes on."""
    told = tape(f"Wild', how: '{how}'")
    assert told.of().champion is not None
    (decision,) = said(told, "wild")
    assert decision.verdict == "raised"
    assert why in decision.reason


def test_nobody_is_woken_for_ever() -> None:
    """A wake-up that is due already is not asked for: it would be given at once, again and again."""
    told = tape("Hasty'")
    assert [key for key in told.of().timers if key.startswith("hasty")] == ["hasty:c"]
    (decision,) = said(told, "hasty")
    assert (list(decision.wakes), decision.inputs) == (["c"], {"a": None})
