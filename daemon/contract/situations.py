"""Questions to ask a policy: random states and facts of every kind, and those of a pipeline that really went on."""

import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import msgspec

from daemon.core.decisions import Decision, Policies, Policy
from daemon.core.errors import FailureClass
from daemon.core.events import EVENTS, ConfigurationChanged, PipelineSettings, PolicySettings, Record
from daemon.core.state import Pipeline
from daemon.simulation.costs import DEFAULTS
from daemon.simulation.histories import synthetic
from daemon.simulation.report import PolicySet, simulate
from policies.base import BasePolicy
from policies.promotion import Promotion
from policies.rewarm_replay import RewarmReplay
from policies.stage_recovery import StageRecovery

EPOCH: Final = datetime(2020, 1, 1, tzinfo=UTC)
STAGES: Final = ("ingest", "probe", "train", "evaluate", "promote")
KINDS: Final = ("rewarm_replay", "periodic_retraining", "stage_recovery", "promotion")
WORDS: Final = ("prose", "code", *STAGES, "shift", "gain", "label.f1", "evaluation.a")
WAKES: Final = ("age", "interval", "p-90")
DAYS: Final = 30.0
MOST: Final = 3
"""Entries of a mapping that is made up."""


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """A state, and the fact that was folded into it last."""

    state: Pipeline
    record: Record


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(kind)


@cache
def _parts(kind: object) -> tuple[object, tuple[Any, ...]]:
    return get_origin(kind), get_args(kind)


class Maker:
    """Makes values of any type that events and states are made of, with words that policies look for."""

    def __init__(self, seed: int, labels: Sequence[str]) -> None:
        self._random = random.Random(seed)  # noqa: S311 - no secret is made of it
        self._labels = (*dict.fromkeys(labels), "other")

    def situation(self, kind: str) -> Situation:
        """Return a state and a fact of this kind that comes after all that the state knows."""
        state: Pipeline = self._value(Pipeline)
        record = Record(
            position=2**41,
            recorded_at=EPOCH + timedelta(seconds=self._random.randint(10**8, 2 * 10**8)),
            source="/test",
            id="1",
            pipeline="p",
            event=self._value(EVENTS[kind]),
        )
        return Situation(state=state, record=record)

    def _value(self, kind: Any) -> Any:  # noqa: ANN401 - types as values
        origin, arguments = _parts(kind)
        made: object
        if kind in self._plain:
            made = self._plain[kind](self)
        elif origin is Annotated:
            made = "0" * 64 if "64" in str(arguments[1:]) and arguments[0] is str else self._value(arguments[0])
        elif origin is Literal:
            made = self._random.choice(arguments)
        elif origin in (Union, UnionType):
            made = self._value(self._random.choice(arguments))
        elif origin is tuple:
            made = tuple(self._value(arguments[0]) for _ in range(self._random.randint(0, 2)))
        elif origin is dict:
            keys = (*self._labels, *WORDS)
            made = {self._random.choice(keys): self._value(arguments[1]) for _ in range(self._random.randint(0, MOST))}
        else:
            made = kind(**{field.name: self._field(kind, field) for field in _fields(kind)})
        return made

    def _field(self, kind: object, field: msgspec.structs.FieldInfo) -> object:
        named = None if field.name == "last" and kind is Pipeline else self._named.get(field.name)
        return self._value(field.type) if named is None else named(self)

    def _one(self, *choices: str) -> str:
        return self._random.choice(choices)

    def _moment(self) -> datetime:
        return EPOCH + timedelta(seconds=self._random.randint(0, 10**8))

    def _timers(self) -> dict[str, datetime]:
        keys = [f"{label}:{key}" for label in self._labels for key in WAKES]
        return {self._random.choice(keys): self._moment() for _ in range(self._random.randint(0, MOST))}

    _named: Final[dict[str, Callable[["Maker"], object]]] = {
        "name": lambda _: "p",
        "run": lambda _: "p-90",
        "policy": lambda self: self._one(*self._labels),
        "stage": lambda self: self._one("probe", "train", "evaluate"),
        "stages": lambda _: STAGES,
        "key": lambda self: self._one(*WAKES),
        "timers": _timers,
        "verdict": lambda self: self._one("due", "waiting", "judged", "blocked"),
        "last": lambda self: self._one("", *get_args(FailureClass)),
        "settings": lambda _: None,
    }
    """Fields whose values are drawn from what policies look for."""

    _plain: Final[dict[object, Callable[["Maker"], object]]] = {
        bool: lambda self: self._random.random() < 0.5,  # noqa: PLR2004 - as often as not
        int: lambda self: self._random.randint(0, self._random.choice((5, 2**40))),
        float: lambda self: self._random.choice((0.0, self._random.uniform(0, 10))),
        str: lambda self: self._one("0" * 64, "a"),
        bytes: lambda _: b"x",
        datetime: _moment,
        type(None): lambda _: None,
    }


def made_up(labels: Sequence[str], *, seed: int, each: int) -> Iterator[Situation]:
    """Yield so many random situations of each kind of fact."""
    for number, kind in enumerate(sorted(EVENTS)):
        maker = Maker(seed * 1000 + number, labels)
        for _ in range(each):
            yield maker.situation(kind)


class _Listener:
    """Stands beside the policies of a pipeline, notes what they are asked, and says nothing."""

    label: Final = "listener"
    version: Final = 1

    def __init__(self, every: int) -> None:
        self._every, self._asked = every, 0
        self.heard: list[Situation] = []

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Note every so many questions."""
        self._asked += 1
        if self._asked % self._every == 0:
            self.heard.append(Situation(state=state, record=record))
        return None


def lived(label: str, *, seed: int, events: int = 500, every: int = 3) -> list[Situation]:
    """Return what the policies of a simulated pipeline were asked; its runs are those of a policy called `label`.

    The shipped policies act in it, so that it is the same for whoever is asked about it afterwards.
    """
    listener = _Listener(every)
    shipped: tuple[BasePolicy, ...] = (
        RewarmReplay(name=label, after_tokens=200_000),
        StageRecovery(name=f"{label[:30]}-stages"),
        Promotion(name=f"{label[:30]}-gate"),
    )
    policies: tuple[Policy, ...] = (*shipped, listener)
    settings = PipelineSettings(stages=STAGES, policies=tuple(map(_settings, shipped)))
    asked: Policies = {"p": policies}
    changed = ConfigurationChanged(hash="0" * 64, slots=1, pipelines={"p": settings})
    history = synthetic("steady", ["p"], seed=seed, days=DAYS, events=events, tokens=50_000)
    simulate(PolicySet(name="lived", changed=changed, policies=asked), history, DEFAULTS, seed=seed)
    return listener.heard


def _settings(policy: BasePolicy) -> PolicySettings:
    return PolicySettings(
        name=policy.label,
        kind=str(getattr(policy, "kind", "")),
        version=policy.version,
        configuration=policy.model_dump_json(by_alias=True),
    )
