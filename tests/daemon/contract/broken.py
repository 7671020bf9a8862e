"""Policies that are broken on purpose, each in one way, and one that is whole."""

import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import ConfigDict, Field, PrivateAttr

from daemon.core.commands import AnyCommand, CancelRun, StartRun
from daemon.core.decisions import Decision
from daemon.core.events import Numbers, Record
from daemon.core.plans import Intent
from daemon.core.state import Pipeline
from policies.base import BasePolicy, Starting, TrainingSettings

COUNTED: list[int] = []


def said(verdict: str = "waiting", reason: str = "It waits.", *commands: AnyCommand, inputs: Numbers = {}) -> Decision:  # noqa: B006 - never changed
    """Make a decision."""
    return Decision(verdict=verdict, reason=reason, commands=commands, inputs=inputs)


class Whole(Starting):
    """Starts when enough waits: keeps every rule."""

    version: ClassVar[int] = 4
    kind: Literal["whole"] = "whole"
    least: int = Field(default=1000, ge=1)
    patience: timedelta = timedelta(hours=1)

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Wish to start, or ask again when its patience has ended."""
        if state.waiting >= self.least:
            schedule = TrainingSettings().schedule("rewarm", first=False)
            intent = Intent(kind="increment", start="champion", training=TrainingSettings().training(schedule, 0.1))
            return self.due(state, record, said("due", "Enough waits."), intent)
        decision = Decision(
            verdict="waiting", reason="Too little waits.", wakes={"age": record.recorded_at + self.patience}
        )
        return self.not_due(state, decision)


class Clock(BasePolicy):
    """Reads the clock."""

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Compare now with the fact's instant."""
        return said("late" if datetime.now(UTC) > record.recorded_at else "early")


class Stopwatch(BasePolicy):
    """Reads another clock."""

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Compare."""
        return said("late" if time.monotonic() < 0 else "early")


class Dice(BasePolicy):
    """Throws dice that always fall alike."""

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Throw."""
        return said("late" if random.random() > 2 else "early")


class Reads(BasePolicy):
    """Reads a file."""

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Read."""
        return said(reason=Path(__file__).read_text(encoding="utf-8")[:0] + "It waits.")


class Hashes(BasePolicy):
    """Takes the first of a set."""

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Take one."""
        return said(reason=f"First comes {next(iter({'alpha', 'beta', 'gamma', 'delta', 'epsilon', 'zeta'}))}.")


class Mutates(BasePolicy):
    """Writes into the state."""

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Write."""
        state.domains["mine"] = 1
        return None


class Raises(BasePolicy):
    """Believes that there always is a champion."""

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Fail without one."""
        assert state.champion is not None
        return said()


class Ghost(BasePolicy):
    """Cancels a run that never was."""

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Cancel."""
        return said("cancelled", "It is enough.", CancelRun(run="ghost"))


class Twice(BasePolicy):
    """Wishes two runs at once."""

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Wish."""
        schedule = TrainingSettings().schedule("rewarm", first=True)
        start = StartRun(
            intent=Intent(kind="base", start="scratch", training=TrainingSettings().training(schedule, 0.0))
        )
        return said("due", "It is time.", start, start)


class Late(BasePolicy):
    """Asks to be woken in the past."""

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Ask."""
        return Decision(verdict="waiting", reason="It waits.", wakes={"age": record.recorded_at})


class Big(BasePolicy):
    """Tells more than a row of the journal shall hold."""

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Tell."""
        return said(inputs={f"number {index}": "x" * 100 for index in range(700)})


class Hoards(BasePolicy):
    """Keeps what it was asked."""

    _asked: list[int] = PrivateAttr(default_factory=list)

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Keep."""
        self._asked.append(record.position)
        return None


class Counts(BasePolicy):
    """Answers by how often it was asked."""

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Count."""
        COUNTED.append(1)
        return said(reason=f"Question {len(COUNTED)}.")


class Mumbles(BasePolicy):
    """Has no word for what it says."""

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Mumble."""
        return said("Not now!", "hm")


class Untyped(BasePolicy):
    """Gives a number where an instant belongs."""

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Give."""
        return said(inputs={"list": [1, 2]})  # type: ignore[dict-item]


class Thawed(BasePolicy):
    """Lets its fields be set."""

    model_config = ConfigDict(frozen=False)

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Say nothing."""
        return None
