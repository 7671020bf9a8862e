"""Replay: fold what was stored, and ask at every fact again what would follow from it today.

The state always goes on from the stored records, never from recomputed ones, so one difference does not hide or
cause another. Nothing here knows a clock, and nothing is written.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal

import msgspec
from pydantic import TypeAdapter, ValidationError

from daemon.core.arbitration import SOURCE, react
from daemon.core.decisions import Policies, Policy
from daemon.core.errors import JournalCorrupt
from daemon.core.events import ConfigurationChanged, DaemonStarted, DecisionMade, PolicySettings, Record
from daemon.core.state import State, dump, fingerprint
from daemon.core.transition import REDUCER_VERSION, evolve
from daemon.journal.base import Snapshot
from policies import AnyPolicy

KEPT: Final = 20
"""Differences that are kept as they are; the others are only counted."""
STEP: Final = 1000
"""Records between two signs of progress."""

Verdict = Literal["differs", "changed"]
_POLICY: Final[TypeAdapter[Policy]] = TypeAdapter(AnyPolicy)


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The first record that today's code would store otherwise in answer to one fact; None: there would be none.

    `why` says what has changed since; where nothing has, it is a bug, and `verdict` is `differs`.
    """

    verdict: Verdict
    why: str
    position: int
    fact: str
    pipeline: str | None
    policy: str | None
    stored: Record | None
    recomputed: Record | None


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """A kept snapshot against the fold: `kept` is the hash that it should have, `folded` what the records give."""

    position: int
    kept: str
    folded: str

    @property
    def good(self) -> bool:
        """Whether both are the same."""
        return self.kept == self.folded


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay found. Facts count under their verdict; `changed` says how many for each reason."""

    position: int
    hash: str
    facts: int
    decisions: int
    same: int
    differs: int
    changed: dict[str, int]
    differences: tuple[Difference, ...]
    snapshots: tuple[Check, ...]

    @property
    def good(self) -> bool:
        """Whether nothing contradicts the journal: no unexplained difference and no wrong snapshot."""
        return not self.differs and all(check.good for check in self.snapshots)


def replay(
    records: Iterable[Record],
    snapshots: Iterable[Snapshot] = (),
    progress: Callable[[int], object] = bool,
    *,
    whole: bool = True,
) -> Replay:
    """Return what today's code says of the records, which begin at position 1.

    Where they may end amid the consequences of a fact, they are not `whole`: what is cut off is not missed.
    `progress` is told the position now and then. Raises JournalCorrupt where a record is missing or follows from
    another one than the fact before it.
    """
    return _Replayer(snapshots, progress, whole=whole).run(records)


def in_force(event: ConfigurationChanged) -> tuple[Policies, dict[tuple[str, str], str]]:
    """Return the policies that a configuration asks for, as today's code makes them, and what is new about them.

    The second part names, for (pipeline, policy), why its answers may be other ones than they were.
    """
    policies: dict[str, list[Policy]] = {}
    news: dict[tuple[str, str], str] = {}
    for name, pipeline in event.pipelines.items():
        policies[name] = []
        for settings in pipeline.policies:
            policy, changed = _today(settings)
            if policy is not None:
                policies[name].append(policy)
            if changed is not None:
                news[name, settings.name] = changed
    return policies, news


def _today(settings: PolicySettings) -> tuple[Policy | None, str | None]:
    try:
        policy = _POLICY.validate_json(settings.configuration)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        return None, f"{settings.kind} cannot be made of its configuration today ({where}: {problem['msg']})"
    if policy.version != settings.version:
        return policy, f"{settings.kind} had version {settings.version}, now it has {policy.version}"
    before = msgspec.json.decode(settings.configuration)
    if msgspec.json.decode(_POLICY.dump_json(policy, by_alias=True)) != before:
        return policy, f"{settings.kind} has other settings now than its stored configuration"
    return policy, None


class _Answer(msgspec.Struct, kw_only=True):
    """A fact, what is stored as its consequences, and what today's code would store."""

    fact: Record
    stored: list[Record]
    recomputed: list[Record]
    reducer: int


class _Replayer:
    """One pass over the records."""

    def __init__(self, snapshots: Iterable[Snapshot], progress: Callable[[int], object], *, whole: bool) -> None:
        self._whole = whole
        self._snapshots = {snapshot.position: snapshot for snapshot in snapshots}
        self._progress = progress
        self._state = State()
        self._policies: Policies = {}
        self._news: Mapping[tuple[str, str], str] = {}
        self._reducer = REDUCER_VERSION
        self._checks: list[Check] = []
        self._differences: list[Difference] = []
        self._changed: Counter[str] = Counter()
        self._facts = self._decisions = self._same = self._differs = 0

    def run(self, records: Iterable[Record]) -> Replay:
        for answer in self._answers(records):
            self._facts += 1
            if answer.stored == answer.recomputed:
                self._same += 1
            else:
                self._judge(answer)
        return Replay(
            position=self._state.position,
            hash=fingerprint(dump(self._state)),
            facts=self._facts,
            decisions=self._decisions,
            same=self._same,
            differs=self._differs,
            changed=dict(sorted(self._changed.items())),
            differences=tuple(self._differences),
            snapshots=tuple(self._checks),
        )

    def _answers(self, records: Iterable[Record]) -> Iterator[_Answer]:
        """Yield each fact with its consequences, one fact late: a daemon tells its configuration before its start."""
        current: _Answer | None = None
        for record in records:
            if record.position != self._state.position + 1:
                missing = f"position {self._state.position + 1} is missing before {record.position}"
                raise JournalCorrupt(f"The journal has a gap, {missing}: restore it from a backup.")
            if record.cause is not None and record.source == SOURCE:
                if current is None or record.cause != current.fact.position:
                    raise JournalCorrupt(
                        f"Record {record.position} follows from {record.cause}, which is not the fact before it."
                    )
                current.stored.append(record)
                self._decisions += isinstance(record.event, DecisionMade)
                self._fold(record)
                continue
            if isinstance(record.event, DaemonStarted):
                self._reducer = record.event.reducer
                if current is not None and isinstance(current.fact.event, ConfigurationChanged):
                    current.reducer = self._reducer
            if current is not None:
                yield current
            if isinstance(record.event, ConfigurationChanged):
                self._policies, self._news = in_force(record.event)
            self._fold(record)
            _, recomputed = react(self._state, record, self._policies)
            current = _Answer(fact=record, stored=[], recomputed=recomputed, reducer=self._reducer)
        if current is not None:
            if not self._whole:
                del current.recomputed[len(current.stored) :]
            yield current

    def _fold(self, record: Record) -> None:
        self._state = evolve(self._state, record)
        snapshot = self._snapshots.get(record.position)
        if snapshot is not None:
            kept = snapshot.hash if fingerprint(snapshot.state) == snapshot.hash else "damaged"
            self._checks.append(Check(position=record.position, kept=kept, folded=fingerprint(dump(self._state))))
        if record.position % STEP == 0:
            self._progress(record.position)

    def _judge(self, answer: _Answer) -> None:
        stored, recomputed = _first(answer.stored, answer.recomputed)
        told = stored or recomputed
        decision = next((r.event for r in (stored, recomputed) if r and isinstance(r.event, DecisionMade)), None)
        verdict, why = self._explain(answer)
        if verdict == "differs":
            self._differs += 1
        else:
            self._changed[why] += 1
        if len(self._differences) < KEPT or (
            verdict == "differs" and sum(each.verdict == "differs" for each in self._differences) < KEPT
        ):
            self._differences.append(
                Difference(
                    verdict=verdict,
                    why=why,
                    position=told.position if told else answer.fact.position,
                    fact=answer.fact.event.kind,
                    pipeline=told.pipeline if told else answer.fact.pipeline,
                    policy=decision.policy if decision else None,
                    stored=stored,
                    recomputed=recomputed,
                )
            )

    def _explain(self, answer: _Answer) -> tuple[Verdict, str]:
        """Return whether a difference has a reason, and which."""
        names = {record.pipeline for record in (answer.fact, *answer.stored, *answer.recomputed)}
        news = {key: why for key, why in self._news.items() if key[0] in names}
        if news and not self._contradicts(answer, news):
            return "changed", "; ".join(sorted(set(news.values())))
        if answer.reducer != REDUCER_VERSION:
            return "changed", f"the reducer had version {answer.reducer}, now it has {REDUCER_VERSION}"
        return "differs", ""

    def _contradicts(self, answer: _Answer, news: Mapping[tuple[str, str], str]) -> bool:
        """Return whether a policy that is what it was now says something else than what is stored."""
        steady = {(name, policy.label) for name, policies in self._policies.items() for policy in policies} - set(news)
        now = _decisions(answer.recomputed)
        return any(
            author in steady and author in now and _said(now[author]) != _said(decision)
            for author, decision in _decisions(answer.stored).items()
        )


def _decisions(records: Iterable[Record]) -> dict[tuple[str, str], DecisionMade]:
    """Return decisions by pipeline and policy; a policy makes at most one in answer to a fact."""
    return {
        (record.pipeline or "", record.event.policy): record.event
        for record in records
        if isinstance(record.event, DecisionMade)
    }


def _said(decision: DecisionMade) -> tuple[object, ...]:
    """Return what a policy itself says: whether it had to wait depends on the others."""
    return decision.verdict, decision.reason, decision.inputs, decision.thresholds, decision.commands, decision.wakes


def _first(stored: Sequence[Record], recomputed: Sequence[Record]) -> tuple[Record | None, Record | None]:
    """Return the first pair that is not the same."""
    for index in range(max(len(stored), len(recomputed))):
        before = stored[index] if index < len(stored) else None
        after = recomputed[index] if index < len(recomputed) else None
        if before != after:
            return before, after
    return None, None
