"""The bench of the planner holds its law against a baseline that knows all that a person could know."""

from msgspec.structs import replace

from daemon.core.events import Loss
from daemon.core.plans import Amount, Limits, ModelSettings, Plan, Schedule, Start, Training
from daemon.core.plans.law import NewDomain, OldDomain, Traits
from stages.run_folder import PastRun
from stages.training.judging.fitting import Point
from tests.bench.bench_planner import Known, best, judge, orders, readings
from tests.bench.planner_life import SHARES, Tried

TRAITS = Traits(
    old=(OldDomain(shift=0.5, height=0.5, lost=0.0, first=False, part=0.05),),
    new=(NewDomain(excess=0.5, unseen=False, part=0.95),),
    forward=0.5,
    annealing=0.0,
    replay=0.05,
    tokens=1000,
    trunk=False,
)
FLAT = Loss(mean=1.0, low=1.0, high=1.0, documents=9, bytes=9)
PLAN = Plan(
    kind="increment",
    start=Start(kind="scratch"),
    parent=1,
    spans=(),
    new={},
    past={},
    model=ModelSettings(),
    stages=(),
    training=Training(
        tokens=1,
        batch=1,
        context=1,
        replay=0.05,
        schedule=Schedule(kind="rewarm", peak=1.0, floor=1.0, plateau=1.0),
        optimiser="keep",
        seed=1,
    ),
    limits=Limits(),
)


def known(
    increment: int, domain: str, gain: float, lost: float, share: float = 0.05, *, promoted: bool = True
) -> Known:
    """Return a run that brought this much."""
    plan = replace(PLAN, new={domain: Amount(tokens=1)})
    past = PastRun(run=f"r{increment}", plan=plan, old={"z": FLAT}, new={domain: FLAT}, evaluation={})
    old = (replace(TRAITS.old[0], part=share),)
    point = Point(traits=replace(TRAITS, replay=share, old=old), forgetting=lost, gain=gain)
    return Known(tried=Tried(increment=increment, share=share, promoted=promoted, past=past, seconds=1.0), point=point)


def test_the_same_as_last_time_has_three_readings() -> None:
    """The run before, the run before on this domain, and the champion's own losses."""
    line = [known(1, "a", 0.1, 0.01), known(2, "b", 0.2, 0.02), known(3, "a", 0.3, 0.03), known(4, "c", 0.4, 0.04)]
    assert readings(line, 2) == {"last_change": (0.2, 0.02), "domain_change": (0.1, 0.01), "last_loss": (0.0, 0.0)}
    assert readings(line, 3)["domain_change"] == (0.3, 0.03)


def test_the_best_reading_counts() -> None:
    """The law is held against whichever reading was nearest over all runs."""
    line = [known(at, "a", 0.25, 0.125) for at in range(1, 5)]
    errors = judge(line)
    assert best(errors) == errors["last_change"] == errors["domain_change"] == 0.0
    assert errors["last_loss"] == 0.1875
    assert errors["law"] > 0
    assert set(errors) >= {"in_time_law", "in_time_last_loss"}


def test_orders_are_judged_by_runs_that_the_law_has_not_seen() -> None:
    """Where more replay forgets less at the same gain, the law says so, and so does the plain rule."""
    runs = [known(at, "a", 0.4, 0.2) for at in (1, 2, 3)]
    runs += [known(4, "a", 0.4, 0.3 - share, share, promoted=share == 0.05) for share in SHARES]
    assert orders(runs) == (1, 1, 1)
    turned = [*runs[:3], *(known(4, "a", 0.4, 0.3 + share, share, promoted=share == 0.05) for share in SHARES)]
    assert orders(turned) == (0, 0, 1)
