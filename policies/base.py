"""What all policies share: a frozen pydantic value whose fields are its configuration."""

from abc import abstractmethod
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self

from msgspec.structs import replace
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from daemon.core.commands import StartRun, WithdrawWish
from daemon.core.decisions import RESERVED, Decision
from daemon.core.events import (
    ConfigurationChanged,
    DataArrived,
    DataIngested,
    DataRejected,
    DataWithdrawn,
    ModelPromoted,
    ModelRolledBack,
    OperatorRequested,
    Record,
    ScheduleSettings,
    StageSucceeded,
    TimerFired,
)
from daemon.core.plans import Intent, Limits, Schedule, ScheduleKind, Training
from daemon.core.state import Pipeline, stands

RECONSIDERED = (
    DataArrived,
    DataWithdrawn,
    DataIngested,
    DataRejected,
    TimerFired,
    OperatorRequested,
    ModelPromoted,
    ModelRolledBack,
    ConfigurationChanged,
)
"""The facts after which a wish to start is considered anew."""


def _not_reserved(name: str) -> str:
    if name in RESERVED:
        message = "this name is rewarm's own; choose another"
        raise ValueError(message)
    return name


Period = Annotated[timedelta, Field(gt=timedelta(0), le=timedelta(days=36_525))]
"""A span of time of at most a century: whatever instant it is added to, the sum still is one."""

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$"), AfterValidator(_not_reserved)]


class BasePolicy(BaseModel):
    """Base of all policies; `name` defaults to the kind and is unique in a pipeline."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    version: ClassVar[int] = 1
    name: Name | None = None

    @cached_property
    def label(self) -> str:
        """The policy's name in its pipeline."""
        return self.name or str(getattr(self, "kind", ""))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy that derives anew what is derived from the fields: `update` may change them."""
        copied = super().model_copy(update=update, deep=deep)
        for name in [name for name in copied.__dict__ if name not in type(self).model_fields]:
            del copied.__dict__[name]
        return copied

    @property
    def ticks(self) -> ScheduleSettings | None:
        """When the clock shall tell it `schedule.fired`, if ever."""
        return None

    @abstractmethod
    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Return what follows from the fact, if anything."""

    def opinion(self, state: Pipeline, record: Record) -> Decision | None:
        """Return the standing opinion with today's numbers: as `plan` and `explain` show it; None: there is none."""
        return self.decide(state, record)


class TrainingSettings(BaseModel):
    """How runs of a policy train; rates are for AdamW, fractions are of the run's steps."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    batch: int = Field(default=16, ge=1, description="sequences in a batch")
    context: int = Field(default=256, ge=8, description="tokens in a sequence")
    peak: float = Field(default=3e-3, gt=0, description="highest learning rate")
    floor: float = Field(default=3e-4, gt=0, description="learning rate at the end of a decay")
    plateau: float | None = Field(default=None, gt=0, description="constant rate of an infinite schedule")
    warmup: float = Field(default=0.01, ge=0, lt=1, description="share of the steps spent warming up")
    optimiser: str = Field(default="keep", pattern="^(keep|reset)$", description="state at the start of a run")
    epochs: float = Field(default=1.0, gt=0, description="how often new data is seen")
    max_tokens: int | None = Field(default=None, ge=1, description="most tokens that a run may train on")

    def schedule(self, kind: ScheduleKind, *, first: bool) -> Schedule:
        """Return the schedule; a run that continues an infinite one neither warms up nor cools down."""
        plateau = self.plateau if self.plateau is not None else (self.peak + self.floor) / 2
        continuing = kind == "infinite" and not first
        return Schedule(
            kind=kind,
            peak=self.peak,
            floor=self.floor,
            plateau=plateau,
            warmup=0.0 if continuing else self.warmup,
            cooldown=0.0 if continuing else 0.6,
        )

    def training(self, schedule: Schedule, replay: float) -> Training:
        """Return the training part of an intent; tokens and seed are fixed when the run starts."""
        return Training(
            tokens=0,
            batch=self.batch,
            context=self.context,
            replay=replay,
            schedule=schedule,
            optimiser="reset" if self.optimiser == "reset" else "keep",
            seed=0,
        )


class LimitSettings(BaseModel):
    """What bounds every stage of a run, in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    time_limit: float = Field(default=86_400.0, gt=0, description="longest that one attempt may run")
    heartbeat: float = Field(default=300.0, ge=1, description="longest silence before an attempt counts as hung")
    checkpoint_every: float = Field(default=60.0, gt=0, description="seconds between checkpoints")

    def limits(self) -> Limits:
        """Return the limits as plans carry them."""
        return Limits(**self.model_dump())


class Starting(BasePolicy):
    """Base of policies that wish to start runs: they say what they want, and take it back when it no longer holds."""

    priority: int = Field(default=0, description="a wish with a higher priority preempts a run with a lower one")
    expires_after: Period | None = Field(default=None, description="how long a wish may wait")
    training: TrainingSettings = TrainingSettings()
    limits: LimitSettings = LimitSettings()

    def wishes(self, state: Pipeline) -> bool:
        """Return whether this policy's wish to start is waiting."""
        return self.label in state.wishes

    def whole(self, intent: Intent) -> Intent:
        """Return the intent with what this policy's configuration says of every run."""
        return replace(
            intent,
            epochs=self.training.epochs,
            max_tokens=self.training.max_tokens,
            limits=self.limits.limits(),
            priority=self.priority,
        )

    def repeats(
        self,
        state: Pipeline,
        record: Record,
        verdict: str,
        wakes: Mapping[str, datetime],
        intent: Intent | None = None,
    ) -> bool:
        """Return whether deciding so would store nothing: the verdict stands, and so does the wish, or there is none.

        `intent` is the whole one that is wished for, None where nothing is. The numbers may have changed: `opinion`
        tells them. A person's request is always answered.
        """
        if isinstance(record.event, OperatorRequested):
            return False
        wish = state.wishes.get(self.label)
        same = wish is None if intent is None else wish is not None and wish.wants(StartRun(intent=intent))
        return same and stands(state, self.label, verdict, wakes)

    def due(self, state: Pipeline, record: Record, decision: Decision, intent: Intent) -> Decision:
        """Return `decision` with the wish to start `intent`."""
        expires_at = record.recorded_at + self.expires_after if self.expires_after else None
        wanted = replace(self.whole(intent), expires_at=expires_at)
        return replace(decision, commands=(StartRun(intent=wanted),))

    def not_due(self, state: Pipeline, decision: Decision) -> Decision:
        """Return `decision`, taking back a wish that waits."""
        return replace(decision, commands=(WithdrawWish(),)) if self.wishes(state) else decision


def blocked(state: Pipeline) -> bool:
    """Return whether the pending data already failed a run and nothing new has come since."""
    return state.failed_upto > 0 and state.last_arrival <= state.failed_upto


def finished_stage(record: Record, stage: str) -> bool:
    """Return whether the fact is the success of this stage."""
    return isinstance(record.event, StageSucceeded) and record.event.stage == stage
