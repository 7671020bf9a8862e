"""Guards: what keeps a policy from starting although it is due. Nothing that waits behind one is lost."""

from datetime import datetime, timedelta

import msgspec
from pydantic import BaseModel, ConfigDict

from daemon.core.events import Numbers
from daemon.core.plans import Intent
from daemon.core.state import Pipeline


class Guarded(msgspec.Struct, frozen=True, kw_only=True):
    """Why a start has to wait: a verdict, a sentence, the numbers, and when time alone ends it."""

    verdict: str
    reason: str
    until: datetime | None = None
    inputs: Numbers = {}
    thresholds: Numbers = {}


class Guards(BaseModel):
    """What every start of a policy is held against."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    cooldown: timedelta | None = None

    def against(self, state: Pipeline, policy: str, intent: Intent, now: datetime) -> Guarded | None:
        """Return what keeps the policy from starting `intent` now, if anything."""
        del intent
        begun = state.begun.get(policy)
        if self.cooldown is None or begun is None or now >= begun + self.cooldown:
            return None
        return Guarded(
            verdict="cooling_down",
            reason=f"The last run of {policy} began at {begun.isoformat()}: not again within {self.cooldown}.",
            until=begun + self.cooldown,
            inputs={"since_start_seconds": round((now - begun).total_seconds(), 3)},
            thresholds={"since_start_seconds": self.cooldown.total_seconds()},
        )
