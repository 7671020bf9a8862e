"""Retrain on everything: after so many increments or so much time, on a calendar, or when increments stop helping."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cached_property
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, Self

from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, Field, model_validator

from daemon.core.commands import StartRun
from daemon.core.decisions import Decision
from daemon.core.events import (
    CatchUp,
    DataArrived,
    DataIngested,
    DataRejected,
    DriftDetected,
    EvaluationReported,
    LabelArrived,
    ModelEvaluated,
    ModelPromoted,
    Numbers,
    OperatorRequested,
    ProbeMeasured,
    Record,
    ScheduleFired,
    ScheduleSettings,
    TimerFired,
)
from daemon.core.plans import Intent, ScheduleKind
from daemon.core.signals import LONGEST
from daemon.core.state import Model, Pipeline, Run, Wish, timer_key
from policies.base import RECONSIDERED, Starting, blocked, finished_stage
from policies.periodic_retraining.curation import CurationSettings
from policies.periods import Period, told
from policies.triggers.base import moment
from policies.triggers.models import Forgotten, promoted
from policies.triggers.signals import Signal
from policies.triggers.votes import AnyOf, AnyTrigger

INTERVAL = "interval"
MEASURED = (ModelEvaluated, ProbeMeasured, EvaluationReported, LabelArrived, DriftDetected)
JUDGED = "judged"
BESIDE = "beside"
WAITING = "waiting"
COUNTED = (DataArrived, DataIngested, DataRejected)
"""Facts about data: they come in any number, and a calendar does not look at them."""
NO_MODEL = Decision(verdict="no_model", reason="There is no model yet that could be trained again: this tick passes.")


class PlateauSettings(BaseModel):
    """When increments count as helping no more."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    min_gain: float = Field(default=0.0, description="a gain from it on is one")
    window: int = Field(default=5, ge=1, le=LONGEST, description="evaluations in a row without a gain")


Origin = Literal["scratch", "base", "champion"]


class PeriodicRetraining(Starting):
    """A retrain after `after_increments` promoted increments, every `every`, at each tick of `cron`, or on request.

    Or when the increments since the last full training have forgotten `max_forgotten`, when none of the last so many
    gained (`plateau`), or when the trigger `when` holds. With several starts in `from`, each is trained, one after the
    other, and the gate judges each against the champion of its moment.

    The interval counts from the last promotion of a model that was retrained or trained first; it rests on a
    wake-up that is pending in the state, so a daemon that was down fires it when it is back. A retrained candidate
    that was refused is an occasion used: the next one comes with another promoted increment, after `every`, or with
    the next tick. A tick is an occasion of its own: where it has to wait, its wish stands until a retrain has
    happened; where the last run over the same data failed, it passes.
    """

    version: ClassVar[int] = 3
    verbs: ClassVar[frozenset[str]] = frozenset({"retrain"})
    kind: Literal["periodic_retraining"] = "periodic_retraining"
    after_increments: int | None = Field(default=None, ge=1, description="promoted increments between retrains")
    every: Period | None = Field(default=None, description="time between retrains")
    cron: str | None = Field(
        default=None, max_length=200, description="calendar of retrains: minute, hour, day, month, day of the week"
    )
    timezone: str = Field(default="UTC", max_length=100, description="whose wall clock `cron` is read on")
    catch_up: CatchUp = Field(default="last", description="what becomes of ticks that no daemon was there for")
    max_forgotten: float | None = Field(
        default=None,
        gt=0,
        description="rise of an older domain's loss over the increments since the last full training",
    )
    plateau: PlateauSettings | None = Field(default=None, description="when increments count as helping no more")
    when: AnyTrigger | None = Field(default=None, description="a further occasion: any trigger")
    start: Origin | Annotated[tuple[Origin, ...], Field(min_length=1)] = Field(
        default="base", alias="from", description="where it starts; several: one run each"
    )
    curate: CurationSettings | None = Field(default=None, description="train on a band of the past alone")
    schedule: ScheduleKind = "rewarm"

    @property
    def ticks(self) -> ScheduleSettings | None:
        """The calendar, if there is one."""
        if self.cron is None:
            return None
        return ScheduleSettings(cron=self.cron, timezone=self.timezone, catch_up=self.catch_up)

    @cached_property
    def starts(self) -> tuple[Origin, ...]:
        """Where it starts, one run after the other."""
        return (self.start,) if isinstance(self.start, str) else self.start

    @property
    def signals(self) -> Mapping[str, int]:
        """What its triggers look at."""
        return self._trigger.signals if self._trigger is not None else {}

    @model_validator(mode="after")
    def _has_an_occasion(self) -> Self:
        if len(set(self.starts)) < len(self.starts):
            message = "`from` names a start twice: one run each"
            raise ValueError(message)
        if self.every is not None and self.every < timedelta(seconds=1):
            message = "`every` must be at least one second"
            raise ValueError(message)
        if self.cron is None and (self.timezone != "UTC" or self.catch_up != "last"):
            message = "`timezone` and `catch_up` say how `cron` is read: give `cron` too, or leave them out"
            raise ValueError(message)
        return self

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Return the wish to retrain when its occasion has come."""
        if (spent := self.spending(state, record)) is not None:
            return spent
        if isinstance(record.event, COUNTED) and self._waits(state):
            return None
        run = state.active
        if run is not None and self._is_mine(run) and finished_stage(record, "evaluate"):
            return self._judged(state, record, run)
        if isinstance(record.event, RECONSIDERED) or self._ticked(record) or self._signalled(record):
            return None if self._repeats(state, record) else self.opinion(state, record)
        return None

    def _waits(self, state: Pipeline) -> bool:
        """Return whether it waits for something that no data brings: asked with every arrival."""
        standing = state.verdicts.get(self.label)
        return (
            self._trigger is None
            and standing is not None
            and standing.verdict == WAITING
            and self.label not in state.wishes
        )

    def _judged(self, state: Pipeline, record: Record, run: Run) -> Decision:
        """Return that the candidate is judged, with the wish for the one beside it, if there is one."""
        wakes = {INTERVAL: record.recorded_at + self.every} if self.every else {}
        following = next((b for a, b in pairwise(self.starts) if a == run.intent.start), None)
        if following is None:
            reason = f"The candidate of {run.run} is judged; the next occasion counts from here."
            return Decision(verdict=JUDGED, reason=reason, wakes=wakes)
        reason = f"The candidate of {run.run} is judged; beside it one is trained from the {following}."
        wanted = replace(self._retrains[following], asked=run.intent.asked)
        # No guard is asked: it is the same occasion, and the first of the pair has passed them all.
        return Decision(verdict=BESIDE, reason=reason, wakes=wakes, commands=(StartRun(intent=wanted),))

    def opinion(self, state: Pipeline, record: Record) -> Decision | None:
        """Return whether a retrain is due, with the numbers."""
        if state.champion is None or state.base is None:
            return NO_MODEL if self._ticked(record) else None
        due_at = self._due_at(state, record)
        verdict, why, wakes = self._weigh(state, record, due_at)
        since = record.recorded_at - self._counts_from(state, state.champion, due_at)
        clause = self._trigger.tell(moment(state, record.recorded_at)) if self._trigger is not None else None
        inputs: Numbers = {"increments": state.increments, "seconds": round(since.total_seconds(), 3)}
        thresholds: Numbers = {
            "increments": self.after_increments,
            "seconds": self.every.total_seconds() if self.every else None,
        }
        if clause is not None:
            inputs, thresholds = {**inputs, **clause.inputs}, {**thresholds, **clause.thresholds}
        reason = why or f"{promoted(state.increments)} since the last full training."
        decision = Decision(verdict=verdict, reason=reason, inputs=inputs, thresholds=thresholds, wakes=wakes)
        if verdict == "due":
            return self.due(state, record, decision, self._retrains[self.starts[0]])
        keeps = self._keeps_wish(state) and (verdict != "blocked" or self._ticked(record))
        return decision if keeps else self.not_due(state, decision)

    def _repeats(self, state: Pipeline, record: Record) -> bool:
        if state.champion is None or state.base is None:
            return False
        verdict, _, wakes = self._weigh(state, record, self._due_at(state, record))
        return self.repeats(state, record, verdict, wakes, self._retrains[self.starts[0]] if verdict == "due" else None)

    def _weigh(self, state: Pipeline, record: Record, due_at: datetime | None) -> tuple[str, str, dict[str, datetime]]:
        """Return the verdict, its occasion or what speaks against it, and when to be asked again."""
        occasion = self._occasion(state, record, due_at)
        if occasion is None:
            wakes = None if self._trigger is None else self._trigger.wakes(moment(state, record.recorded_at))
            soonest = min((at for at in (due_at, wakes) if at is not None), default=None)
            return WAITING, "", {INTERVAL: soonest} if soonest else {}
        obstacle = None if self._asked(record) else self._obstacle(state, record)
        return (*(obstacle or ("due", occasion)), {})

    def _asked(self, record: Record) -> bool:
        return isinstance(record.event, OperatorRequested) and record.event.verb == "retrain"

    def _ticked(self, record: Record) -> bool:
        return isinstance(record.event, ScheduleFired) and record.event.policy == self.label

    def _is_over(self, record: Record) -> bool:
        event = record.event
        return isinstance(event, TimerFired) and (event.policy, event.key) == (self.label, INTERVAL)

    def _keeps_wish(self, state: Pipeline) -> bool:
        """A wish that an operator or a tick asked for stands although no number does, until a retrain has happened."""
        wish = state.wishes.get(self.label)
        return wish is not None and (state.retrained < wish.since or self._is_beside(wish))

    def _is_beside(self, wish: Wish | None) -> bool:
        return wish is not None and wish.intent is not None and wish.intent.start in self.starts[1:]

    def _signalled(self, record: Record) -> bool:
        return self._trigger is not None and bool(self._trigger.signals) and isinstance(record.event, MEASURED)

    def _is_mine(self, run: Run) -> bool:
        return run.policy == self.label and run.plan.kind == "retrain"

    def _obstacle(self, state: Pipeline, record: Record) -> tuple[str, str] | None:
        """Return the verdict and the reason that speak against a retrain although its occasion has come."""
        if blocked(state):
            return "blocked", "The last run over this data ended without a model; new data or retry."
        if self._is_beside(state.wishes.get(self.label)):
            return BESIDE, "The run beside the last one waits for its turn."
        for run in (state.active, state.yielded, state.held):
            if run is not None and self._is_mine(run):
                return "running", f"Run {run.run} is the retrain that was due."
        if state.champion is not None and state.champion.position < state.retrained and not self._is_new(state, record):
            return JUDGED, "What was retrained last is not the champion; another increment or the interval."
        return None

    def _is_new(self, state: Pipeline, record: Record) -> bool:
        """Return whether the occasion came after the last retrain was judged, whatever the numbers are."""
        if self._ticked(record) or self._is_over(record):
            return True
        return self.kept_back(state, state.retrained) or self._keeps_wish(state)

    def _due_at(self, state: Pipeline, record: Record) -> datetime | None:
        """Return when the interval is over: as the pending wake-up says, which the last full training set."""
        if self.every is None or state.base is None or state.champion is None:
            return None
        run = state.active
        if isinstance(record.event, ModelPromoted) and run is not None and run.plan.kind != "increment":
            return state.champion.promoted_at + self.every
        pending = state.timers.get(timer_key(self.label, INTERVAL))
        if pending is not None:
            return min(pending, record.recorded_at + self.every)  # `every` may have become shorter
        return state.champion.fully_trained_at + self.every

    def _counts_from(self, state: Pipeline, champion: Model, due_at: datetime | None) -> datetime:
        """Return since when the interval counts: the last full training, or the refusal of its candidate."""
        if due_at is not None and self.every is not None and timer_key(self.label, INTERVAL) in state.timers:
            return due_at - self.every
        return champion.fully_trained_at

    def _occasion(self, state: Pipeline, record: Record, due_at: datetime | None) -> str | None:
        if self._asked(record):
            return "An operator asked for a retrain."
        if isinstance(record.event, ScheduleFired):
            return f"The schedule {record.event.cron!r} fired for {record.event.scheduled_for.isoformat()}."
        if self.after_increments is not None and state.increments >= self.after_increments:
            return f"{promoted(state.increments)} since the last full training."
        if self.every is not None and due_at is not None and record.recorded_at >= due_at:
            return f"The last full training is older than {told(self.every)}."
        if self._trigger is not None:
            now = moment(state, record.recorded_at)
            if self._trigger.holds(now):
                return f"A retrain is due: {self._trigger.tell(now).why}."
        if self.kept_back(state, state.retrained):
            return "An occasion that a guard kept back stands."
        return None

    @cached_property
    def _trigger(self) -> AnyTrigger | None:
        """All occasions that are conditions, as one trigger."""
        parts: list[AnyTrigger] = [] if self.when is None else [self.when]
        if self.max_forgotten is not None:
            parts.append(Forgotten(forgotten=self.max_forgotten))
        if self.plateau is not None:
            row = {"for": self.plateau.window}
            parts.append(Signal(signal="gain", below=self.plateau.min_gain, **row))
        if not parts:
            return None
        return parts[0] if len(parts) == 1 else AnyOf(any=tuple(parts))

    @cached_property
    def _retrains(self) -> dict[Origin, Intent]:
        """The whole intent of a retrain from each start."""
        schedule = self.training.schedule(self.schedule, first=True)
        training = self.training.training(schedule, 0.0)
        curation = self.curate.curation() if self.curate is not None else None
        return {
            start: self.whole(Intent(kind="retrain", start=start, training=training, curation=curation))
            for start in self.starts
        }
