"""Small courses of events with exact costs: every instant of theirs can be worked out by hand."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from daemon.core.decisions import Decision, Policy
from daemon.core.events import (
    AnyEvent,
    ConfigurationChanged,
    DataArrived,
    PipelineSettings,
    PolicySettings,
    Record,
)
from daemon.core.state import Pipeline, State
from daemon.simulation.costs import DEFAULTS, Costs, Duration, Normal, Share
from daemon.simulation.engine import Engine
from daemon.simulation.histories import Fact, History, Storm
from daemon.simulation.tally import Tally
from policies.base import BasePolicy

STAGES = ("ingest", "probe", "train", "evaluate", "promote")
ZERO = datetime(2026, 1, 5, tzinfo=UTC)
EXACT = Costs(
    durations={
        "ingest": Duration(fixed=1.0),
        "probe": Duration(fixed=2.0),
        "train": Duration(fixed=0.0, per_million=1_000_000.0),
        "evaluate": Duration(fixed=3.0),
        "promote": Duration(fixed=4.0),
    },
    other_stage=Duration(fixed=5.0),
    counted=Normal(mean=1.0, deviation=0.0),
    counted_by_domain={},
    rejected=Share(share=0.0),
    shift=Normal(mean=0.0, deviation=0.0),
    gain=Normal(mean=0.1, deviation=0.0, half=0.01),
    gain_by_domain={},
    forgetting=Normal(mean=0.0, deviation=0.0, half=0.01),
    forgetting_by_domain={},
    failures={},
    attempts={},
    other_failures={},
)
"""A second a token to train; ingest, probe, evaluate and promote take 1, 2, 3 and 4 seconds; nothing fails."""


class Witness:
    """Sees every fact that policies are shown, and what followed from it; decides nothing."""

    label = "witness"
    version = 1

    def __init__(self) -> None:
        self.records: dict[int, Record] = {}

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Take note."""
        self.records[record.position] = record
        return None


class Seen(Tally):
    """A tally that keeps what followed too."""

    def __init__(self, begin: datetime, end: datetime, witness: Witness) -> None:
        super().__init__(begin, end)
        self._witness = witness

    def observe(self, record: Record, decided: list[Record], state: State) -> None:
        """Take note."""
        super().observe(record, decided, state)
        self._witness.records |= {each.position: each for each in decided}


@dataclass
class Course:
    """What happened under some policies."""

    engine: Engine
    tally: Tally
    witness: Witness
    state: State

    def records(self) -> list[Record]:
        """Return what was recorded about pipelines, in order."""
        return [self.witness.records[position] for position in sorted(self.witness.records)]

    def told(self, *kinds: str) -> list[tuple[float, AnyEvent]]:
        """Return the events of these kinds with their seconds since the beginning."""
        return [
            ((record.recorded_at - ZERO).total_seconds(), record.event)
            for record in self.records()
            if record.event.kind in kinds
        ]


@dataclass(frozen=True)
class Maker:
    """Makes histories and lets them happen."""

    zero: datetime = ZERO
    exact: Costs = field(default_factory=lambda: EXACT)

    def arrivals(
        self, seconds: Sequence[float], tokens: int = 60, pipeline: str = "p", domain: str = "prose"
    ) -> list[Fact]:
        """Return arrivals at these seconds."""
        event = DataArrived(uri="a", domain=domain, bytes=tokens, tokens=tokens, documents=1)
        return [Fact(ZERO + timedelta(seconds=second), pipeline, event) for second in seconds]

    def history(self, facts: Iterable[Fact], seconds: float, storms: tuple[Storm, ...] = ()) -> History:
        """Return a history of these facts."""
        ordered = sorted(facts, key=lambda fact: fact.at)

        def again() -> Iterator[Fact]:
            return iter(ordered)

        end = ZERO + timedelta(seconds=seconds)
        return History(name="made", description="by hand", begin=ZERO, end=end, facts=again, storms=storms)

    def changed(
        self, policies: Mapping[str, Sequence[Policy]], slots: int = 1, priorities: dict[str, int] | None = None
    ) -> ConfigurationChanged:
        """Return what such a configuration tells."""
        pipelines = {
            name: PipelineSettings(
                stages=STAGES,
                priority=(priorities or {}).get(name, 0),
                policies=tuple(
                    PolicySettings(
                        name=policy.label,
                        kind=policy.label,
                        version=policy.version,
                        configuration=policy.model_dump_json(by_alias=True) if isinstance(policy, BasePolicy) else "{}",
                        schedule=getattr(policy, "ticks", None),
                        shadow=getattr(policy, "shadow", False),
                    )
                    for policy in each
                ),
                signals={
                    name: most
                    for policy in each
                    if isinstance(policy, BasePolicy)
                    for name, most in policy.signals.items()
                },
            )
            for name, each in policies.items()
        }
        digest = hashlib.sha256(repr(sorted(pipelines)).encode()).hexdigest()
        return ConfigurationChanged(hash=digest, slots=slots, pipelines=pipelines)

    def course(
        self,
        policies: Sequence[Policy] | Mapping[str, Sequence[Policy]],
        history: History,
        costs: Costs = EXACT,
        **options: Any,  # noqa: ANN401 - of the engine and the configuration
    ) -> Course:
        """Let a history happen."""
        witness = Witness()
        each = policies if isinstance(policies, Mapping) else {"p": policies}
        watched: dict[str, Sequence[Policy]] = {name: (*some, witness) for name, some in each.items()}
        configured = {key: options.pop(key) for key in ("slots", "priorities") if key in options}
        tally = Seen(history.begin, history.end, witness)
        engine = Engine(
            changed=self.changed(each, **configured),
            policies=watched,
            history=history,
            costs=costs,
            seed=options.pop("seed", 1),
            approve_after=options.pop("approve_after", None),
            observer=tally,
        )
        return Course(engine=engine, tally=tally, witness=witness, state=engine.run())

    def costs(self, **fields: Any) -> Costs:  # noqa: ANN401 - its fields
        """Return the exact costs, but for these fields."""
        return replace(EXACT, **fields)


@pytest.fixture(scope="session")
def make() -> Maker:
    """Hand out the maker of courses."""
    return Maker()


@pytest.fixture(scope="session")
def defaults() -> Costs:
    """Hand out the costs where nothing was learned."""
    return DEFAULTS
