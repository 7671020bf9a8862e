"""What holds for every trigger alike, whatever it is composed of and whatever the moment."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from pydantic import TypeAdapter

from daemon.core.ledger import Cost, Reading
from daemon.core.plans import Amount, Checkpoint
from daemon.core.state import Model, Pipeline
from policies.triggers import AnyTrigger, Moment, Trigger, leaves, moment, unseen
from policies.triggers.costs import Regret
from policies.triggers.votes import NoneOf

ADAPTER: TypeAdapter[Trigger] = TypeAdapter(AnyTrigger)
START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND, MICRO = timedelta(seconds=1), timedelta(microseconds=1)
FAR = timedelta(days=36_500)
QUICK = settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)

seconds = st.integers(1, 100_000)
small = st.integers(1, 50)
named = st.sampled_from(["code", "prose", None])
rates = st.floats(0.01, 10)
instants = st.integers(0, 100_000).map(lambda each: START + each * SECOND)
bounds = st.one_of(
    st.fixed_dictionaries({"above": st.floats(-1, 1)}),
    st.fixed_dictionaries({"below": st.floats(-1, 1)}),
    st.fixed_dictionaries({"quantile": st.floats(0.1, 0.9)}, optional={"side": st.sampled_from(["above", "below"])}),
    st.fixed_dictionaries({"deviation": st.floats(0, 3), "window": st.integers(5, 9)}),
    st.fixed_dictionaries({"relative": st.floats(0, 3), "least": st.integers(1, 3)}),
)
timed: st.SearchStrategy[Any] = st.one_of(
    st.fixed_dictionaries({"tokens": small}, optional={"domain": named}),
    st.fixed_dictionaries({"documents": small}),
    st.fixed_dictionaries({"arrivals": small}),
    st.fixed_dictionaries({"age": seconds}, optional={"of": st.sampled_from(["data", "champion", "base"])}),
    st.fixed_dictionaries({"silence": seconds}),
    st.fixed_dictionaries({"increments": st.integers(1, 3)}),
    st.fixed_dictionaries({"forgotten": rates}, optional={"domain": named}),
    st.fixed_dictionaries({"regret": rates}),
)
told: st.SearchStrategy[Any] = st.builds(
    lambda name, bound, row: {"signal": name, **bound, "for": row},
    st.sampled_from(["shift", "gain", "label.f1"]),
    bounds,
    st.integers(1, 3),
)


def composed(parts: st.SearchStrategy[Any], *, none: bool = True) -> st.SearchStrategy[Any]:
    """Return votes over lists of what is drawn."""
    several = st.lists(parts, min_size=1, max_size=4)
    votes = ["any", "all", "majority", *(["none"] if none else [])]
    return st.one_of(
        st.builds(lambda vote, members: {vote: members}, st.sampled_from(votes), several),
        st.builds(lambda count, members: {"at_least": min(count, len(members)), "of": members}, small, several),
    )


def made(parts: st.SearchStrategy[Any], *, none: bool = True) -> st.SearchStrategy[Trigger]:
    """Return triggers composed of what is drawn."""
    return st.recursive(parts, lambda each: composed(each, none=none), max_leaves=8).map(ADAPTER.validate_python)


@st.composite
def pipelines(draw: st.DrawFn) -> Pipeline:
    """Draw a pipeline in which something waits or not, with a champion or not, before `START` and 100,000 s after."""
    amounts = st.builds(Amount, arrivals=small, documents=small, tokens=small)
    pending = draw(st.dictionaries(st.sampled_from(["code", "prose", "news"]), amounts, max_size=3))
    readings = st.builds(
        Reading, value=st.floats(-1, 1), at=instants, position=st.integers(0, 40), version=named_version
    )
    champion = draw(st.none() | models)
    return Pipeline(
        name="p",
        pending=pending,
        waiting=sum(each.tokens for each in pending.values()),
        waiting_since=draw(instants) if pending else None,
        waited=draw(st.floats(0, 1e9)) if pending else 0.0,
        waited_at=START,
        last_arrival_at=draw(instants) if pending else None,
        champion=champion,
        base=champion and draw(st.none() | models),
        increments=draw(st.integers(0, 4)),
        settled=draw(st.integers(0, 20)),
        signals=draw(
            st.dictionaries(st.sampled_from(["shift", "gain", "label.f1"]), st.lists(readings, max_size=12).map(tuple))
        ),
        cost=draw(st.just(Cost()) | st.builds(Cost().after, st.floats(1, 1e6), st.floats(1, 1e5))),
        looked={domain: Amount(arrivals=1, documents=1, tokens=5) for domain in sorted(pending)},
        looked_at=draw(st.none() | instants),
    )


named_version = st.sampled_from([None, 1, 2])
models = st.builds(
    Model,
    version=st.just(1),
    run=st.just("p-1"),
    path=st.just("v1"),
    sha256=st.just("0" * 64),
    trunk=st.just(Checkpoint(path="t", sha256="0" * 64)),
    parent=st.none(),
    losses=st.just({}),
    past=st.just({}),
    promoted_at=instants,
    position=st.integers(0, 20),
    forgotten=st.dictionaries(st.sampled_from(["code", "prose"]), st.floats(-1, 10)),
)
moments = st.builds(lambda ask, state, now: ask(state, now), st.sampled_from([moment, unseen]), pipelines(), instants)


@QUICK
@given(made(timed | told), moments)
def test_asked_twice_it_says_the_same_and_changes_nothing(trigger: Trigger, asked: Moment) -> None:
    """Triggers are pure, their numbers can be stored, and a clause neither starts nor ends like a sentence."""
    before = msgspec.json.encode(asked, order="deterministic")
    answers = [(trigger.speaks(asked), trigger.holds(asked), trigger.wakes(asked), trigger.tell(asked)) for _ in "ab"]
    assert answers[0] == answers[1]
    assert msgspec.json.encode(asked, order="deterministic") == before
    told = answers[0][3]
    assert told.why
    assert not told.why.endswith(".")
    assert msgspec.json.decode(msgspec.json.encode(told), type=type(told)) == told
    again = ADAPTER.validate_json(ADAPTER.dump_json(trigger, by_alias=True))
    assert again == trigger
    assert again.holds(asked) == answers[0][1]


@QUICK
@given(made(timed | told), moments)
def test_no_number_hides_another(trigger: Trigger, asked: Moment) -> None:
    """As many numbers are told as all parts have, and each threshold has its input under the same name."""
    told = trigger.tell(asked)
    parts = [leaf.tell(asked) for leaf in leaves(trigger)]
    assert len(told.inputs) == sum(len(part.inputs) for part in parts)
    assert told.inputs.keys() == told.thresholds.keys()
    assert sorted(map(str, told.thresholds.values())) == sorted(
        str(v) for part in parts for v in part.thresholds.values()
    )


@settings(QUICK, max_examples=120)
@given(made(timed), moments, st.lists(st.floats(0, 1, exclude_max=True), max_size=5))
def test_it_wakes_at_the_first_instant_at_which_it_holds(trigger: Trigger, asked: Moment, shares: list[float]) -> None:
    """At that instant it holds, at none before; where there is none, it never holds by time alone."""
    if trigger.holds(asked):
        return
    at = trigger.wakes(asked)
    end = at or asked.now + FAR
    assert end > asked.now
    assert trigger.holds(replace(asked, now=end)) == (at is not None)
    exact = [] if any(isinstance(leaf, Regret) for leaf in leaves(trigger)) else [end - MICRO]
    for between in [*exact, *(asked.now + (end - asked.now) * (share * 0.999) for share in shares)]:
        assert not trigger.holds(replace(asked, now=between))


@QUICK
@given(made(timed, none=False), moments, seconds, small)
def test_without_none_more_data_and_more_time_never_undo_it(
    trigger: Trigger, asked: Moment, wait: int, more: int
) -> None:
    """What holds keeps holding while data comes and time passes, but for what silence and cost say of new data."""
    kinds = {leaf.key for leaf in leaves(trigger)}
    if not trigger.holds(asked):
        return
    assert trigger.holds(replace(asked, now=asked.now + wait * SECOND))
    if not kinds & {"silence", "regret"}:
        extra = Amount(arrivals=more, documents=more, tokens=more)
        pending = {domain: amount + extra for domain, amount in sorted(asked.pending.items())}
        assert trigger.holds(replace(asked, pending=pending))


@QUICK
@given(st.lists(made(timed | told), min_size=1, max_size=5), moments)
def test_votes_are_counts(parts: list[Trigger], asked: Moment) -> None:
    """Any is one of them, all are all, a majority is more than half, none is not any: of those that speak."""
    members = [ADAPTER.dump_python(part, by_alias=True) for part in parts]
    holding = [part.holds(asked) for part in parts if part.speaks(asked)]
    votes = {
        "any": sum(holding) >= 1,
        "all": bool(holding) and all(holding),
        "majority": sum(holding) * 2 > len(holding),
        "none": bool(holding) and not any(holding),
    }
    for vote, expected in votes.items():
        assert ADAPTER.validate_python({vote: members}).holds(asked) == expected, vote
    for count in range(1, len(parts) + 1):
        least = ADAPTER.validate_python({"at_least": count, "of": members})
        assert least.holds(asked) == (bool(holding) and sum(holding) >= min(count, len(holding)))
    assert isinstance(ADAPTER.validate_python({"none": members}), NoneOf)
