"""What every trigger is: a frozen condition that holds or not, knows when time alone makes it hold, and says why."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import ClassVar

import msgspec
from pydantic import BaseModel, ConfigDict

from daemon.core.events import Numbers, Scalar
from daemon.core.plans import Amounts, subtract
from daemon.core.state import Pipeline, free_amounts


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """What a trigger weighs: the pipeline, now, and the data that is asked about.

    `pending` is what no run has taken; of a look, what no look has seen either. `since` is when it began to wait.
    `looked_at` is the last look, of a look alone: what was told by then has had its look.
    """

    state: Pipeline
    now: datetime
    pending: Amounts
    since: datetime | None
    looked_at: datetime | None = None


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A trigger's numbers, and in a clause why it holds, or does not."""

    why: str
    inputs: Numbers = {}
    thresholds: Numbers = {}


class Trigger(BaseModel):
    """Base of all triggers; the fields are its configuration, and `key` is the one by which it is recognised.

    `holds` and `wakes` are asked with every fact and must be quick; `tell` is asked when something is stored or shown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    key: ClassVar[str] = ""

    @property
    def signals(self) -> Mapping[str, int]:
        """The signals that it looks at, each with how many of its last values it needs."""
        return {}

    @property
    def parts(self) -> tuple["Trigger", ...]:
        """What it is composed of."""
        return ()

    def speaks(self, moment: Moment) -> bool:
        """Return whether there is what it compares with; where not, votes are taken without it."""
        del moment
        return True

    @abstractmethod
    def holds(self, moment: Moment) -> bool:
        """Return whether the condition is met."""

    def wakes(self, moment: Moment) -> datetime | None:
        """Return when it will be met if nothing happens until then; None: never. Asked where it is not met."""
        del moment
        return None

    @abstractmethod
    def tell(self, moment: Moment) -> Told:
        """Return the numbers and why."""


def moment(state: Pipeline, now: datetime) -> Moment:
    """Return the moment of what is free now."""
    pending = free_amounts(state)
    return Moment(state=state, now=now, pending=pending, since=state.waiting_since if pending else None)


def unseen(state: Pipeline, now: datetime) -> Moment:
    """Return the moment of what is free and no look has seen."""
    pending = free_amounts(state)
    if state.active is not None or state.looked_at is None:  # a run takes first what was looked at before it
        return Moment(state=state, now=now, pending=pending, since=state.waiting_since if pending else None)
    pending = subtract(pending, state.looked)
    since = state.looked_at if pending else None
    return Moment(state=state, now=now, pending=pending, since=since, looked_at=state.looked_at)


def everything(moment: Moment) -> bool:
    """Return whether all is there that a trigger compares with: a champion, and what a run costs."""
    return moment.state.champion is not None and moment.state.cost.runs > 0


def leaves(trigger: Trigger) -> Iterable[Trigger]:
    """Yield the triggers that are composed of no others."""
    if not trigger.parts:
        yield trigger
    for part in trigger.parts:
        yield from leaves(part)


def needed(triggers: Iterable[Trigger]) -> dict[str, int]:
    """Return the signals that triggers look at, each as long as whoever needs most of it."""
    found: dict[str, int] = {}
    for trigger in triggers:
        for name, length in trigger.signals.items():
            found[name] = max(length, found.get(name, 0))
    return found


def together(told: Iterable[Told], why: str) -> Told:
    """Return all numbers as one; a name that is there already gets a number, the same for input and threshold."""
    inputs: dict[str, Scalar] = {}
    thresholds: dict[str, Scalar] = {}
    for each in told:
        for name in dict.fromkeys([*each.inputs, *each.thresholds]):
            free, count = name, 1
            while free in inputs or free in thresholds:
                count += 1
                free = f"{name}_{count}"
            if name in each.inputs:
                inputs[free] = each.inputs[name]
            if name in each.thresholds:
                thresholds[free] = each.thresholds[name]
    return Told(why=why, inputs=inputs, thresholds=thresholds)
