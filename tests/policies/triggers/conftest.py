"""Triggers by their configuration, and moments in which they are asked."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from pydantic import TypeAdapter

from daemon.core.ledger import Cost, Reading
from daemon.core.state import Pipeline
from policies.triggers import AnyTrigger, Moment, Trigger, moment

Build = Any
ADAPTER: TypeAdapter[Trigger] = TypeAdapter(AnyTrigger)
COST = Cost().after(1e6, 3600.0)
"""An hour for a million tokens."""


class Make:
    """Makes triggers, and what they weigh."""

    def __init__(self, build: Build) -> None:
        self.build = build

    @staticmethod
    def trigger(fields: object) -> Trigger:
        """Return the trigger that stands so in a file."""
        return ADAPTER.validate_python(fields)

    @staticmethod
    def json(trigger: Trigger) -> bytes:
        """Return what the journal keeps of it."""
        return ADAPTER.dump_json(trigger, by_alias=True)

    @staticmethod
    def again(text: bytes) -> Trigger:
        """Return what the journal's text makes of it."""
        return ADAPTER.validate_json(text)

    def pipeline(self, tokens: int = 0, **fields: Any) -> Pipeline:  # noqa: ANN401 - of a pipeline
        """Return a pipeline with a champion and past runs, in which so many tokens wait since noon."""
        champion = self.build.model()
        known = {"champion": champion, "base": champion, "cost": COST, "settled": champion.position, "domains": {}}
        state: Pipeline = replace(self.build.pipeline(tokens), **{**known, **fields})
        return state

    def at(self, state: Pipeline, **period: float) -> Moment:
        """Return the moment of what is free so long after noon."""
        return moment(state, self.build.after(**period))

    def series(self, *values: float, first: int = 100, **fields: Any) -> tuple[Reading, ...]:  # noqa: ANN401 - of a reading
        """Return values of a signal, one position after the other, all of them of the first champion."""
        known = {"at": self.build.noon, "version": 1}
        return tuple(Reading(value=each, position=first + n, **{**known, **fields}) for n, each in enumerate(values))


@pytest.fixture
def make(build: Build) -> Make:
    """Hand out the makers."""
    return Make(build)


@pytest.fixture
def told(make: Make) -> Callable[[object, Moment], tuple[bool, str]]:
    """Return whether a trigger holds in a moment, and why."""

    def ask(fields: object, asked: Moment) -> tuple[bool, str]:
        trigger = make.trigger(fields)
        return trigger.holds(asked), trigger.tell(asked).why

    return ask
