"""What every guard is asked, and what it answers."""

from datetime import datetime

import msgspec
from pydantic import BaseModel, ConfigDict

from daemon.core.decisions import AWAITING
from daemon.core.events import Numbers
from daemon.core.plans import Intent
from daemon.core.state import Pipeline

VERDICTS = frozenset({"cooling_down", "over_budget", "quiet_hours", "debouncing", "claimed", AWAITING})
"""What a policy says when it is due and a guard keeps it from starting."""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """A start that is due: whose, and what; `looked`: a run that has looked would go on and train.

    `brief`: the verdict and its end are enough, for it is asked with every fact whether they stand.
    """

    state: Pipeline
    now: datetime
    policy: str
    intent: Intent
    looked: bool = False
    brief: bool = False


class Guarded(msgspec.Struct, frozen=True, kw_only=True):
    """Why a start has to wait: a verdict, a sentence, the numbers, and when time alone ends it."""

    verdict: str
    reason: str
    until: datetime | None = None
    inputs: Numbers = {}
    thresholds: Numbers = {}


class GuardSettings(BaseModel):
    """Base of what guards are configured by: frozen, and of known keys alone."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def shown(instant: datetime) -> str:
    """Return an instant as reasons name it: UTC, to the second."""
    return instant.strftime("%Y-%m-%d %H:%M:%S UTC")
