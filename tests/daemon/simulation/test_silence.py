"""Policies that keep silent where they would only repeat themselves: what is recorded is the same."""

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from daemon.core.decisions import Decision
from daemon.core.events import OperatorRequested, Record, ScheduleSettings, Verb
from daemon.core.state import Pipeline, fingerprint
from daemon.core.state import dump as dump_state
from daemon.simulation.costs import Costs, Normal
from daemon.simulation.histories import Fact, synthetic
from policies.base import RECONSIDERED, BasePolicy
from policies.periodic_retraining import PeriodicRetraining
from policies.promotion import Promotion
from policies.rewarm_replay import RewarmReplay
from policies.stage_recovery import StageRecovery

if TYPE_CHECKING:
    from tests.daemon.simulation.conftest import Maker

SETS: dict[str, tuple[BasePolicy, ...]] = {
    "example": (
        RewarmReplay(after_tokens=40_000),
        PeriodicRetraining(after_increments=3),
        StageRecovery(),
        Promotion(),
    ),
    "ageing": (
        RewarmReplay(after_tokens=90_000, max_age=timedelta(hours=2), expires_after=timedelta(minutes=20)),
        PeriodicRetraining(every=timedelta(hours=7), priority=1, expires_after=timedelta(hours=1)),
        StageRecovery(retries=1),
        Promotion(approval="always"),
    ),
    "calendar": (
        PeriodicRetraining(cron="15 */5 * * *", after_increments=2),
        RewarmReplay(after_tokens=30_000, max_age=timedelta(hours=1)),
        RewarmReplay(name="rush", after_tokens=70_000, priority=2),
        Promotion(min_gain=0.02),
    ),
}


@dataclass(frozen=True)
class Talkative:
    """Says what a policy thinks after every fact that makes it think, new or not."""

    policy: BasePolicy

    @property
    def label(self) -> str:
        """The policy's."""
        return self.policy.label

    @property
    def version(self) -> int:
        """The policy's."""
        return self.policy.version

    @property
    def ticks(self) -> ScheduleSettings | None:
        """The policy's."""
        return self.policy.ticks

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Return the policy's decision, or else its opinion."""
        decision = self.policy.decide(state, record)
        if decision is None and isinstance(record.event, RECONSIDERED):
            return self.policy.opinion(state, record) if isinstance(self.policy, THINKERS) else None
        return decision


THINKERS = (RewarmReplay, PeriodicRetraining)


@pytest.mark.parametrize("name", ["busy", "failure-storm", "bursty"])
@pytest.mark.parametrize("policies", sorted(SETS))
def test_silence_changes_no_record(make: "Maker", defaults: Costs, name: str, policies: str) -> None:
    """A day of arrivals, requests, failures and refusals is recorded alike when nobody keeps silent."""
    history = synthetic(name, ["p"], seed=2, days=1, events=700, tokens=1000)
    verbs: tuple[tuple[int, Verb], ...] = (
        *((5, "retrain"), (9, "pause"), (11, "resume")),
        *((13, "rollback"), (17, "retrain"), (19, "retry")),
    )
    asked = [
        Fact(make.zero + timedelta(hours=hour), "p", OperatorRequested(verb=verb, by="ann")) for hour, verb in verbs
    ]
    history = make.history([*history.facts(), *asked], 86_400, history.storms)
    costs = replace(defaults, gain=Normal(mean=0.02, deviation=0.03, half=0.01))
    chosen = SETS[policies]
    talkative = tuple(Talkative(policy) for policy in chosen)
    options = {"approve_after": timedelta(hours=3), "seed": 5}
    quiet = make.course(chosen, history, costs, **options)
    loud = make.course(talkative, history, costs, **options)
    assert quiet.records()[1:] == loud.records()[1:], "the first one is the configuration"
    assert len(quiet.records()) > 700
    left_out = {"configuration": "", "pipelines": {}}
    assert fingerprint(dump_state(replace(quiet.state, **left_out))) == fingerprint(
        dump_state(replace(loud.state, **left_out))
    )
