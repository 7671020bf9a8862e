"""Whatever happens: every arrival is accounted for once, slots are kept, and time never goes back."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from daemon.core.decisions import Policy
from daemon.core.events import (
    RunCancelled,
    RunFailed,
    RunHeld,
    RunPostponed,
    RunPreempted,
    RunResumed,
    RunStarted,
    RunSucceeded,
)
from daemon.simulation.account import GOING_ON
from daemon.simulation.costs import Costs, Normal, Share
from daemon.simulation.histories import SHAPES, synthetic
from policies.periodic_retraining import PeriodicRetraining
from policies.promotion import Promotion
from policies.rewarm_replay import RewarmReplay
from policies.stage_recovery import StageRecovery

if TYPE_CHECKING:
    from tests.daemon.simulation.conftest import Maker

ENDS = (RunSucceeded, RunFailed, RunCancelled, RunHeld, RunPostponed, RunPreempted)
hours = st.integers(1, 30).map(lambda number: timedelta(hours=number))


@st.composite
def policies(draw: st.DrawFn) -> tuple[Policy, ...]:
    """Draw policies that have something to do with a few days of data."""
    size = draw(st.sampled_from([20_000, 60_000, 200_000]))
    looking = {"when": {"signal": "shift", "above": 0.35}, "look": {"tokens": size}}
    starting: dict[str, Any] = draw(
        st.just(looking) | st.builds(lambda age: {"after_tokens": size, "max_age": age}, st.none() | hours)
    )
    cooldown = draw(st.none() | hours)
    return (
        RewarmReplay.model_validate(
            {
                **starting,
                "expires_after": draw(st.none() | hours),
                "priority": draw(st.integers(0, 1)),
                "guards": {"cooldown": cooldown},
            }
        ),
        PeriodicRetraining(
            after_increments=draw(st.none() | st.integers(1, 4)),
            every=draw(st.none() | hours),
            priority=draw(st.integers(0, 2)),
        ),
        StageRecovery(retries=draw(st.integers(0, 3))),
        Promotion(approval=draw(st.sampled_from(["auto", "undecided", "always"]))),
    )


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(sorted(SHAPES)),
    seed=st.integers(1, 9),
    both=st.tuples(policies(), policies()),
    slots=st.integers(1, 2),
    failing=st.sampled_from([0.0, 0.1, 0.4]),
    approve_after=st.none() | hours,
)
def test_nothing_is_lost_or_counted_twice(
    make: "Maker",
    defaults: Costs,
    name: str,
    seed: int,
    both: tuple[tuple[Policy, ...], ...],
    slots: int,
    failing: float,
    approve_after: timedelta | None,
) -> None:
    """Contained, waiting, set aside and rejected arrivals are all that came; runs keep to the slots."""
    history = synthetic(name, ["p", "q"], seed=seed, days=2, events=150, tokens=5000)
    costs = replace(
        defaults,
        gain=Normal(mean=0.02, deviation=0.03, half=0.01),
        rejected=Share(share=0.02),
        failures={"train": {"worker_lost": failing}, "evaluate": {"transient": failing / 2, "user_error": failing / 4}},
    )
    options = {"slots": slots, "seed": seed, "approve_after": approve_after, "priorities": {"q": 1}}
    course = make.course(dict(zip("pq", both, strict=True)), history, costs, **options)
    for pipeline, state in course.state.pipelines.items():
        account, book = course.tally.account(pipeline), course.engine.books[pipeline]
        accounted = len(account.waited) + len(book.waiting()) + book.set_aside + book.rejected + book.withdrawn
        assert accounted == sum(state.domains.values())
        assert all(wait >= 0 for wait in account.waited)
        living = {run.run for run in (state.active, state.held, state.yielded) if run is not None}
        assert {run.run for run in account.runs.values() if run.outcome == GOING_ON} <= living
    active: dict[str, str] = {}
    last = history.begin
    for record in course.records():
        assert last <= record.recorded_at <= history.end
        last, name, event = record.recorded_at, record.pipeline or "", record.event
        if isinstance(event, RunStarted | RunResumed):
            assert name not in active
            active[name] = event.run
            assert len(active) <= slots
        elif isinstance(event, ENDS) and active.get(name) == event.run:
            del active[name]
    spent = sum(seconds for account in course.tally.accounts.values() for seconds in account.seconds.values())
    assert spent <= slots * (history.end - history.begin).total_seconds()
