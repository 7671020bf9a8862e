"""What every trigger is: a frozen condition that holds or not, knows when time alone makes it hold, and says why."""

from abc import abstractmethod
from collections.abc import Mapping
from datetime import datetime

import msgspec
from pydantic import BaseModel, ConfigDict

from daemon.core.events import Numbers
from daemon.core.plans import Amounts
from daemon.core.state import Pipeline, free_amounts


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """What a trigger weighs: the pipeline, now, and the data that is asked about.

    `pending` is what no run has taken; of a look, what no look has seen either. `since` is when it began to wait.
    """

    state: Pipeline
    now: datetime
    pending: Amounts
    since: datetime | None


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A trigger's numbers, and in a clause why it holds, or does not."""

    why: str
    inputs: Numbers = {}
    thresholds: Numbers = {}


class Trigger(BaseModel):
    """Base of all triggers; the fields are its configuration.

    `holds` and `wakes` are asked with every fact and must be quick; `tell` is asked when something is stored or shown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def signals(self) -> Mapping[str, int]:
        """The signals that it looks at, each with how many of its last values it needs."""
        return {}

    @abstractmethod
    def holds(self, moment: Moment) -> bool:
        """Return whether the condition is met."""

    def wakes(self, moment: Moment) -> datetime | None:
        """Return when it will be met if nothing happens until then; None: never, or it is met already."""
        del moment
        return None

    @abstractmethod
    def tell(self, moment: Moment) -> Told:
        """Return the numbers and why."""


def moment(state: Pipeline, now: datetime) -> Moment:
    """Return the moment of what is free now."""
    pending = free_amounts(state)
    return Moment(state=state, now=now, pending=pending, since=state.waiting_since if pending else None)
