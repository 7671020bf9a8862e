"""The real stages on a virtual clock: an attempt is carried out when it is ordered, and told when it would have ended.

What an attempt is given is put into words that know nothing of the policy that ordered it: no run, no position, no
version. The same work under two policies is one folder, done once; a folder that is finished is not done again.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec
from msgspec.structs import replace

import stages.training  # noqa: F401 - before torch: it says how torch's threads wait
from daemon.core.encoding import decode
from daemon.core.events import (
    AnyEvent,
    DataIngested,
    InterruptReason,
    ModelPromoted,
    StageEvent,
    StageFailed,
    StageInterrupted,
    StageStarted,
    StageSucceeded,
)
from daemon.core.plans import Checkpoint, DataSettings, Limits, ModelSettings, Plan, Schedule, Start, Training
from daemon.core.state import Order, Run
from daemon.files import write_atomically
from stages.base import Context, Result, load
from stages.execute import execute
from stages.run_folder import Arrival, Champion, Shard, Specification, finished, lines, place_specification
from stages.training.engine.device import prepare
from stages.training.judging.evaluation import Budget
from stages.training.judging.measuring import held_out, load_recorded
from stages.training.models import adapter_of

if TYPE_CHECKING:
    from daemon.simulation.attempts import Told

SEED = 1
SECONDS = "seconds.json"
MEASURED = "measured.json"
ALMOST_ALL = 0.9999
BUDGET = Budget(documents=256, bytes=512 * 1024)


class StageBroke(Exception):
    """A stage ended otherwise than well."""


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """A finished attempt: its folder, what it told, and the processor's seconds that it took."""

    folder: Path
    told: tuple[AnyEvent, ...]
    seconds: float


class Workshop:
    """Carries attempts out below `state`, with one thread; `plan` says how texts are measured."""

    def __init__(self, state: Path, inbox: Path, plan: Plan) -> None:
        self.state, self.inbox = state, inbox
        self._plan = plan

    def do(self, specification: Specification) -> Work:
        """Carry an attempt out, or find it done; raises StageBroke with what the stage said."""
        key = content(specification)
        folder = self.state / "runs" / key / specification.stage / "1"
        given = replace(specification, pipeline=key, run=key, command=f"1/{key}/bench/0", threads=1)
        if finished(folder) and not (folder / SECONDS).exists():
            shutil.rmtree(folder)  # it was ended before its time was written down
        place_specification(folder, given)
        if not finished(folder):
            load(specification.implementation)  # what is imported once is no stage's work
            began = time.process_time()
            execute(folder)
            seconds = time.process_time() - began
            write_atomically(folder / SECONDS, msgspec.json.encode(seconds))
        told = tuple(_event(line) for line in lines(folder))
        if not isinstance(told[-1], StageSucceeded):
            said = told[-1].message if isinstance(told[-1], StageFailed) else str(told[-1])
            raise StageBroke(f"{specification.stage} did not succeed: {said} It lies in {folder}.")
        return Work(folder=folder, told=told, seconds=msgspec.json.decode((folder / SECONDS).read_bytes(), type=float))

    def loss(self, model: Checkpoint, file: str) -> float:
        """Return what a model loses on a file of the inbox, in nats per byte."""
        size = Path(file).stat().st_size
        arrival = Arrival(
            position=1, path=file, format="jsonl", domain="measured", bytes=size, tokens=size, documents=1
        )
        plan = replace(self._plan, data=DataSettings(held_out=ALMOST_ALL))
        whole = replace(self._own(plan, "ingest", "ingest"), arrivals=(arrival,))
        (ingested,) = [event for event in self.do(whole).told if isinstance(event, DataIngested)]
        shard = Shard(position=1, domain="measured", manifest=str(self.state / ingested.manifest))
        champion = Champion(version=1, model=model, trunk=model)
        asked = replace(self._own(plan, "measure", f"{__name__}:Measure"), new=(shard,), champion=champion)
        return msgspec.json.decode((self.do(asked).folder / MEASURED).read_bytes(), type=float)

    def _own(self, plan: Plan, stage: str, implementation: str) -> Specification:
        return Specification(
            pipeline="",
            run="",
            stage=stage,
            attempt=1,
            command="",
            implementation=implementation,
            state=str(self.state),
            roots=(str(self.inbox),),
            plan=plan,
        )


class Measure:
    """A stage: the champion's loss on all that is held out of the new data."""

    def run(self, context: Context) -> Result:
        """Measure, and write it down."""
        specification = context.specification
        assert specification.champion is not None
        device, adapter = prepare(specification.threads), adapter_of(context)
        model = load_recorded(context, adapter, specification.champion.model, device)
        (excerpts,) = held_out(context, specification.new, BUDGET).values()
        size = specification.plan.training.context
        nats = adapter.document_nats(model, excerpts.tokens, context=size, beat=lambda: context.beat(0, 0))
        loss = float(nats.sum() / excerpts.bytes.sum())
        write_atomically(context.folder / MEASURED, msgspec.json.encode(loss))
        return Result()


def content(specification: Specification) -> str:
    """Return a name for what a stage is given."""
    blank = replace(specification, pipeline="", run="", command="", state="", roots=(), threads=0)
    return hashlib.sha256(msgspec.json.encode(blank)).hexdigest()[:16]


def impersonal(given: Specification, numbers: Mapping[int, int], done: Mapping[str, str]) -> Specification:
    """Return a specification that does not know who ordered it: arrivals by number, nothing else by its place.

    `done` are the folders of the run's stages. What past runs teach is left out: no policy here asks for it.
    """
    champion = None if given.champion is None else replace(given.champion, version=1)
    return replace(
        given,
        plan=_blank(given.plan),
        attempt=1,
        arrivals=tuple(replace(each, position=numbers[each.position], counted=None) for each in given.arrivals),
        new=tuple(replace(each, position=numbers[each.position]) for each in given.new),
        past=tuple(replace(each, position=numbers[each.position]) for each in given.past),
        champion=champion,
        model_version=1,
        done=dict(sorted(done.items())),
        resume_from=(),
        history=(),
    )


def personal(event: StageEvent, given: Specification, numbers: Mapping[int, int]) -> AnyEvent:
    """Return what a stage told as the attempt that was ordered would have told it."""
    named = replace(event, run=given.run, stage=given.stage, attempt=given.attempt)
    if isinstance(named, DataIngested):
        position = next(place for place, number in numbers.items() if number == named.arrival)
        counted = next(each.counted for each in given.arrivals if each.position == position)
        return replace(named, arrival=position, estimate=counted or named.estimate)
    if isinstance(named, ModelPromoted):
        plan = given.plan
        return replace(named, model_version=given.model_version, parent=plan.parent, spans=plan.spans)
    return cast("AnyEvent", named)


def measuring(model: ModelSettings, context: int) -> Plan:
    """Return the plan that says how texts are measured; nothing is trained by it."""
    nothing = Schedule(kind="constant", peak=1.0, floor=1.0, plateau=1.0)
    training = Training(tokens=1, batch=1, context=context, replay=0.0, schedule=nothing, optimiser="reset", seed=0)
    return Plan(
        kind="base",
        start=Start(kind="scratch"),
        parent=None,
        spans=(),
        new={},
        past={},
        model=model,
        stages=(),
        training=training,
        limits=Limits(),
    )


class RealAttempt:
    """An attempt that was carried out; `scale` virtual seconds stand for one of the processor."""

    def __init__(
        self, run: Run, order: Order, work: Work, given: Specification, numbers: Mapping[int, int], *, now: datetime
    ) -> None:
        self.command, self.began, self.stage, self.stopping = order.command, now, order.stage, False
        self.processes = 1
        self._given, self._tokens = given, run.plan.training.tokens if order.stage == "train" else 0
        self._seconds = 0.0
        self._events: Iterator[Told] = iter(())
        self.head: Told | None = None
        self._tell(order, work, numbers)

    def _tell(self, order: Order, work: Work, numbers: Mapping[int, int]) -> None:
        self._seconds = work.seconds
        end = self.began + timedelta(seconds=work.seconds)
        names = {"run": order.run, "stage": order.stage, "attempt": order.attempt}
        begun = StageStarted(**names, command=order.command, host="bench", pid=1)  # type: ignore[arg-type]
        between = [
            (end, personal(event, self._given, numbers))
            for event in work.told
            if isinstance(event, StageEvent) and not isinstance(event, StageStarted | StageSucceeded)
        ]
        ended = StageSucceeded(**names, seconds=work.seconds)  # type: ignore[arg-type]
        self._events = iter([(self.began, begun), *between, (end, ended)])
        self.head = next(self._events)

    def tell(self) -> AnyEvent:
        """Return what `head` tells, and go on to what comes after it."""
        assert self.head is not None
        event = self.head[1]
        self.head = next(self._events, None)
        return event

    def stop(self, reason: InterruptReason, now: datetime) -> None:
        """End at once."""
        self.stopping = True
        given = self._given
        ended = StageInterrupted(run=given.run, stage=given.stage, attempt=given.attempt, reason=reason)
        self._events = iter(())
        self.head = (now, ended)

    def trained(self, at: datetime) -> int:
        """Return how many tokens it has trained on when it ends at this instant."""
        share = min(1.0, (at - self.began).total_seconds() / self._seconds) if self._seconds else 1.0
        return round(self._tokens * share)


def _blank(plan: Plan) -> Plan:
    start = replace(plan.start, version=None if plan.start.version is None else 1)
    return replace(
        plan,
        start=start,
        parent=None if plan.parent is None else 1,
        spans=(),
        training=replace(plan.training, seed=SEED),
        rule="",
        prediction=None,
    )


def _event(line: bytes) -> AnyEvent:
    told = json.loads(line)
    return decode(told["kind"], told["version"], json.dumps(told["data"]))
