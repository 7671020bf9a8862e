"""A history under some policies, through the real core and the real stages; and the same, simulated."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from daemon.core.events import (
    ConfigurationChanged,
    DataArrived,
    DataIngested,
    ModelPromoted,
    Record,
    RunStarted,
    StageSucceeded,
)
from daemon.core.plans import Checkpoint
from daemon.core.state import Model, Order, Pipeline, Run, State
from daemon.dispatch.specification import attempt_folder, specify
from daemon.journal.base import scan, scan_where
from daemon.journal.memory import MemoryJournal
from daemon.simulation.attempts import AtWork
from daemon.simulation.costs import DEFAULTS, Costs
from daemon.simulation.engine import Engine
from daemon.simulation.histories import Fact, History
from daemon.simulation.learning import KINDS, Learner
from daemon.simulation.report import PolicySet, Report, account_of, simulate
from daemon.simulation.tally import Tally
from tests.bench.triggers_stages import RealAttempt, Work, Workshop, impersonal
from tests.bench.triggers_text import BEGIN, SERIES, Text

if TYPE_CHECKING:
    from pathlib import Path

SCALE = 3600.0
"""Virtual seconds for one of the processor: this model's hour is a large model's thousand."""
AFTER = timedelta(days=60)
"""Virtual time after the last arrival."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What the champion in force lost on the text that came next; `weight` is that text's size in bytes."""

    series: str
    number: int
    at: datetime
    version: int
    loss: float
    weight: int


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a history: the report, the facts and decisions, and what the champions lost on what came next."""

    report: Report
    records: tuple[Record, ...]
    readings: tuple[Reading, ...]

    def loss(self, series: str | None = None) -> float:
        """Return the mean loss on what came next, by the tokens of what came."""
        found = [each for each in self.readings if series in (None, each.series)]
        return average([(each.loss, each.weight) for each in found])


def history(texts: Mapping[str, Sequence[Text]]) -> History:
    """Return the arrivals of all series as one history."""
    told = sorted((text for series in texts.values() for text in series), key=lambda text: (text.at, text.series))

    def facts() -> Iterator[Fact]:
        for text in told:
            event = DataArrived(
                uri=text.file, domain=text.series, bytes=text.bytes, tokens=text.tokens, documents=text.documents
            )
            yield Fact(text.at, text.series, event, recorded=code(text.series, text.number))

    end = max(text.at for text in told) + AFTER
    description = f"{len(told)} arrivals of dated text"
    return History(name="dated", description=description, begin=BEGIN, end=end, facts=facts)


class RealEngine(Engine):
    """The engine with real attempts; what it records is a journal that the dispatcher's own code reads."""

    def __init__(
        self,
        workshop: Workshop,
        texts: Mapping[str, Sequence[Text]],
        *,
        changed: ConfigurationChanged,
        policies: PolicySet,
        history: History,
        observer: Tally,
        tell: Callable[[str], None],
    ) -> None:
        super().__init__(
            changed=changed,
            policies=policies.policies,
            history=history,
            costs=DEFAULTS,
            seed=1,
            approve_after=None,
            observer=observer,
            recorder=self._recorded,
        )
        self.journal = MemoryJournal()
        self.readings: list[Reading] = []
        self._workshop, self._texts, self._tell_person = workshop, texts, tell
        self._numbers: dict[str, dict[int, int]] = {name: {} for name in texts}
        self._folders: dict[tuple[str, str, int], Path] = {}

    def begin(self, name: str, pipeline: Pipeline, run: Run, order: Order, now: datetime) -> AtWork:
        """Carry an attempt out, and have it told when it would have ended."""
        state, inbox = self._workshop.state, self._workshop.inbox
        given = specify(self.journal, pipeline, order, state=state, roots=(inbox,), threads=0)
        done = {
            event.stage: str(self._folders[event.run, event.stage, event.attempt])
            for record in scan_where(self.journal, 0, kinds=(StageSucceeded.kind,), run=order.run)
            if isinstance(event := record.event, StageSucceeded)
        }
        assert done.keys() == given.done.keys()
        work = self._workshop.do(impersonal(given, self._numbers[name], done))
        self._folders[order.run, order.stage, order.attempt] = work.folder
        assert attempt_folder(state, order.run, order.stage, order.attempt) != work.folder
        spent = Work(folder=work.folder, told=work.told, seconds=round(work.seconds * SCALE, 3))
        return RealAttempt(run, order, spent, given, self._numbers[name], now=now)

    def _recorded(self, record: Record, decided: Sequence[Record], state: State) -> None:
        with self.journal.transaction() as transaction:
            transaction.append((record, *decided))
        if isinstance(record.event, DataArrived) and record.pipeline is not None:
            numbers = self._numbers[record.pipeline]
            numbers[record.position] = len(numbers) + 1
            champion = state.pipelines[record.pipeline].champion
            if champion is not None:
                self._read(record, champion, self._texts[record.pipeline][len(numbers) - 1])
        for each in decided:
            if isinstance(each.event, RunStarted):
                self._tell_person(f"{each.recorded_at:%Y-%m-%d} {each.event.run} begins")

    def _read(self, record: Record, champion: Model, text: Text) -> None:
        loss = self._workshop.loss(Checkpoint(path=champion.path, sha256=champion.sha256), text.measured)
        self.readings.append(
            Reading(
                series=text.series,
                number=text.number,
                at=record.recorded_at,
                version=champion.version,
                loss=loss,
                weight=text.tokens,
            )
        )


def tells(name: str) -> Callable[[str], None]:
    """Return what says how far a policy's history is."""

    def tell(word: str) -> None:
        print(f"  {name}, {word}", flush=True)

    return tell


def really(
    workshop: Workshop,
    texts: Mapping[str, Sequence[Text]],
    policies: PolicySet,
    tell: Callable[[str], None],
) -> Course:
    """Let the history happen with real trainings."""
    dated = history(texts)
    tally = Tally(dated.begin, dated.end)
    engine = RealEngine(
        workshop,
        texts,
        changed=policies.changed,
        policies=policies,
        history=dated,
        observer=tally,
        tell=tell,
    )
    state = engine.run()
    return Course(
        report=account_of(policies, tally, engine, state, dated).report,
        records=tuple(scan(engine.journal)),
        readings=tuple(engine.readings),
    )


def untouched(workshop: Workshop, texts: Mapping[str, Sequence[Text]], course: Course) -> dict[tuple[str, int], float]:
    """Return what each series' first champion loses on every later arrival: as if it were never trained again."""
    first: dict[str, Checkpoint] = {}
    for record in course.records:
        if isinstance(record.event, ModelPromoted) and record.pipeline is not None:
            first.setdefault(record.pipeline, Checkpoint(path=record.event.path, sha256=record.event.sha256))
    return {
        (name, text.number): workshop.loss(first[name], text.measured)
        for name, series in texts.items()
        for text in series
        if text.number > 1
    }


def simulated(texts: Mapping[str, Sequence[Text]], policies: PolicySet, costs: Costs) -> Report:
    """Return what a simulation makes of the same history."""
    return simulate(policies, history(texts), costs, seed=1).report


def taught(courses: Sequence[Course]) -> Costs:
    """Return what the journals of these courses teach, without chance: what is drawn is its mean.

    An arrival is known in all of them by its series and number: what probes measured of it is found again.
    """
    learner = Learner()
    for course in courses:
        codes: dict[int, int] = {}
        counts = dict.fromkeys(SERIES, 0)
        for record in course.records:
            event = record.event
            if isinstance(event, DataArrived) and record.pipeline is not None:
                counts[record.pipeline] += 1
                codes[record.position] = code(record.pipeline, counts[record.pipeline])
            elif isinstance(event, DataIngested):
                learner.see(replace(record, event=replace(event, arrival=codes[event.arrival])))
            elif event.kind in KINDS:
                learner.see(record)
    costs = learner.costs()
    return replace(
        costs,
        durations={stage: replace(each, spread=0.0) for stage, each in costs.durations.items()},
        counted_by_domain={name: replace(each, deviation=0.0) for name, each in costs.counted_by_domain.items()},
        shift=replace(costs.shift, deviation=0.0),
    )


def code(series: str, number: int) -> int:
    """Return the number by which an arrival is known in every course."""
    return 1000 * SERIES.index(series) + number


def average(weighted: Sequence[tuple[float, float]]) -> float:
    """Return the mean of (value, weight)."""
    weight = sum(each for _, each in weighted)
    return sum(value * each for value, each in weighted) / weight if weight else 0.0
