"""What all policies share: a frozen pydantic value whose fields are its configuration."""

from abc import abstractmethod
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from msgspec.structs import replace
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from daemon.core.commands import FixPlan, PostponeRun, StartRun, WithdrawWish
from daemon.core.decisions import AWAITING, RESERVED, Decision
from daemon.core.events import (
    ConfigurationChanged,
    DataArrived,
    DataIngested,
    DataRejected,
    DataWithdrawn,
    ModelPromoted,
    OperatorRequested,
    Record,
    ScheduleSettings,
    StageSucceeded,
    TimerFired,
)
from daemon.core.plans import (
    TRUNKS,
    Engine,
    Intent,
    Length,
    Limits,
    Optimiser,
    Schedule,
    ScheduleKind,
    Training,
    falling_peak,
)
from daemon.core.state import Pipeline, stands
from policies.guards import VERDICTS, Guarded, Guards, Start
from policies.guards.asking import GUARD, armed, asked, spending, stays
from policies.periods import Period

SOON: Final = timedelta(seconds=1)
RECONSIDERED = (
    DataArrived,
    DataWithdrawn,
    DataIngested,
    DataRejected,
    TimerFired,
    OperatorRequested,
    ModelPromoted,
    ConfigurationChanged,
)
"""The facts after which a wish to start is considered anew."""


def _not_reserved(name: str) -> str:
    if name in RESERVED:
        message = "this name is rewarm's own; choose another"
        raise ValueError(message)
    return name


Share = Annotated[float, Field(ge=0, lt=1)]


class LengthSettings(BaseModel):
    """A part of a run that does not grow with it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    steps: int = Field(default=0, ge=0)
    tokens: int = Field(default=0, ge=0)


Part = Share | LengthSettings

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$"), AfterValidator(_not_reserved)]


class BasePolicy(BaseModel):
    """Base of all policies; `name` defaults to the kind and is unique in a pipeline."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    version: ClassVar[int] = 1
    name: Name | None = None
    mode: Literal["act", "shadow"] | None = Field(
        default=None, description="shadow: decides and records, and does not act; null: as the pipeline says"
    )

    @cached_property
    def shadow(self) -> bool:
        """Whether its decisions are recorded and not carried out."""
        return self.mode == "shadow"

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

    @property
    def signals(self) -> Mapping[str, int]:
        """The signals that it looks at, each with how many of its last values it needs."""
        return {}

    @abstractmethod
    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Return what follows from the fact, if anything."""

    def opinion(self, state: Pipeline, record: Record) -> Decision | None:
        """Return the standing opinion with today's numbers: as `plan` and `explain` show it; None: there is none."""
        return self.decide(state, record)


class TrainingSettings(BaseModel):
    """How runs of a policy train; rates are for AdamW, shares are of the run's steps."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    batch: int = Field(default=16, ge=1, description="sequences in a batch")
    context: int = Field(default=256, ge=1, description="tokens in a sequence; 1 for a model of kind module")
    peak: float = Field(default=3e-3, gt=0, description="highest learning rate")
    floor: float = Field(default=3e-4, gt=0, description="learning rate at the end of a decay")
    plateau: float | None = Field(default=None, gt=0, description="constant rate of an infinite schedule")
    warmup: Part = Field(default=0.01, description="how long the rate rises: a share, {steps: …} or {tokens: …}")
    cooldown: Part = Field(default=0.6, description="infinite: when the plateau is reached, from the start")
    anneal: Part = Field(default=0.15, description="infinite, wsd, wsd_s: how long the last decay takes")
    cooling: Literal["cosine", "inverse_sqrt"] = Field(default="cosine", description="infinite: the cooldown's form")
    falling_peak: bool = Field(default=False, description="each increment peaks lower, by all that was trained before")
    optimiser: Literal["keep", "reset"] = Field(default="keep", description="state at the start of a run")
    betas: tuple[Share, Share] = Field(default=(0.9, 0.95), description="of AdamW's two averages")
    weight_decay: float = Field(default=0.1, ge=0, description="of matrices")
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    skip_sigma: float | None = Field(default=None, gt=0, description="a step this far above the last ones is left out")
    average: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="decay of a moving average of the weights, which then is the candidate"
    )
    epochs: float = Field(default=1.0, gt=0, description="how often new data is seen")
    max_tokens: int | None = Field(default=None, ge=1, description="most tokens that a run may train on")
    precision: Literal["auto", "float32", "bfloat16"] = Field(default="auto", description="auto: bfloat16 on CUDA")
    accumulate: int = Field(default=1, ge=1, description="parts in which a batch is computed")
    recompute: bool = Field(default=False, description="compute activations again instead of keeping them")
    compile: bool = Field(default=False, description="torch.compile")
    evaluations: int = Field(default=0, ge=0, le=1000, description="measurements of held-out documents on the way")
    processes: int = Field(default=1, ge=1, le=1024, description="processes that share a batch")
    sharding: Literal["ddp", "fsdp2"] = Field(default="ddp", description="whether they share the weights too")

    @model_validator(mode="after")
    def _whole_parts(self) -> Self:
        if self.batch % (self.accumulate * self.processes):
            message = "`batch` must be a multiple of `accumulate` x `processes`"
            raise ValueError(message)
        return self

    def schedule(self, kind: ScheduleKind, *, first: bool, trained: int = 0, new: int = 0) -> Schedule:
        """Return the schedule; a run that continues an infinite or a wsd one neither warms up nor cools down.

        `trained` are the tokens that the model has seen, `new` those of the run: a falling peak depends on them.
        """
        continuing = kind in TRUNKS and not first
        peak = self.peak
        if self.falling_peak and not first:
            peak = falling_peak(self.peak, self.floor, before=trained, new=new)
        return Schedule(
            kind=kind,
            peak=peak,
            floor=self.floor,
            plateau=self.plateau if self.plateau is not None else (peak + self.floor) / 2,
            warmup=0.0 if continuing else _length(self.warmup),
            cooldown=0.0 if continuing else _length(self.cooldown),
            anneal=1 - self.anneal if isinstance(self.anneal, float) else _length(self.anneal),
            cooling=self.cooling,
        )

    def training(self, schedule: Schedule, replay: float) -> Training:
        """Return the training part of an intent; tokens and seed are fixed when the run starts."""
        return Training(
            tokens=0,
            batch=self.batch,
            context=self.context,
            replay=replay,
            schedule=schedule,
            optimiser=self.optimiser,
            seed=0,
            adamw=Optimiser(
                betas=self.betas,
                weight_decay=self.weight_decay,
                clip=self.clip,
                skip_sigma=self.skip_sigma,
                average=self.average,
            ),
            engine=Engine(
                precision=self.precision,
                accumulate=self.accumulate,
                recompute=self.recompute,
                compile=self.compile,
                evaluations=self.evaluations,
                processes=self.processes,
                sharding=self.sharding,
            ),
        )


def _length(part: "float | LengthSettings") -> float | Length:
    return part if isinstance(part, float) else Length(steps=part.steps, tokens=part.tokens)


class LimitSettings(BaseModel):
    """What bounds every stage of a run: times in seconds, and a training's loss."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    time_limit: float = Field(default=86_400.0, gt=0, description="longest that one attempt may run")
    heartbeat: float = Field(default=300.0, ge=1, description="longest silence before an attempt counts as hung")
    checkpoint_every: float = Field(default=60.0, gt=0, description="seconds between checkpoints")
    spike_factor: float | None = Field(
        default=None, gt=1, description="a loss that stays this many times above its lowest fails the attempt"
    )
    spike_steps: int = Field(default=32, ge=2, le=10_000, description="steps whose median loss is compared")

    def limits(self) -> Limits:
        """Return the limits as plans carry them."""
        return Limits(**self.model_dump())


class Starting(BasePolicy):
    """Base of policies that wish to start runs: they say what they want, and take it back when it no longer holds.

    What is due and guarded is not wished for. What a person asks for, by one of `verbs` or by an approval, goes past
    every guard, and its wish stands until it is acted on.
    """

    verbs: ClassVar[frozenset[str]] = frozenset({"train"})
    priority: int = Field(default=0, description="a wish with a higher priority preempts a run with a lower one")
    expires_after: Period | None = Field(default=None, description="how long a wish may wait")
    guards: Guards = Field(default=Guards(), description="what keeps it from starting although it is due")
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
        wish, now = state.wishes.get(self.label), record.recorded_at
        if intent is not None and not self.guards.idle:
            intent, kept = self._tried(state, record, intent, brief=True)
            if kept is not None:
                verdict, intent = kept.verdict, None
                wakes = {**wakes, **armed(state, self.label, GUARD, now, kept.until)}
            elif not intent.asked:
                wakes = {**wakes, **armed(state, self.label, GUARD, now, self.guards.closes(now))}
        elif intent is not None and stays(state, self.label):
            intent = replace(intent, asked=True)
        if intent is None:
            return (wish is None or stays(state, self.label)) and stands(state, self.label, verdict, wakes)
        same = wish is not None and wish.wants(StartRun(intent=intent))
        return same and stands(state, self.label, verdict, wakes)

    def due(self, state: Pipeline, record: Record, decision: Decision, intent: Intent) -> Decision:
        """Return `decision` with the wish to start `intent`, or with what keeps it from starting."""
        now = record.recorded_at
        wanted, kept = self._tried(state, record, self.whole(intent))
        if kept is not None:
            return self.not_due(state, self._told_kept(state, record, decision, kept))
        expires_at = now + self.expires_after if self.expires_after else None
        closes = None if wanted.asked else self.guards.closes(now)
        if closes is not None:
            expires_at = closes if expires_at is None else min(expires_at, closes)
        wakes = {**decision.wakes, **armed(state, self.label, GUARD, now, closes)}
        return replace(decision, commands=(StartRun(intent=replace(wanted, expires_at=expires_at)),), wakes=wakes)

    def not_due(self, state: Pipeline, decision: Decision) -> Decision:
        """Return `decision`, taking back a wish that waits, unless a person asked for it."""
        if not self.wishes(state) or stays(state, self.label):
            return decision
        return replace(decision, commands=(WithdrawWish(),))

    def trains(self, state: Pipeline, record: Record, decision: Decision) -> Decision:
        """Return `decision`, by which a run that has looked would train, or its postponement where a guard holds."""
        run, now = state.active, record.recorded_at
        plan = next((each.plan for each in decision.commands if isinstance(each, FixPlan)), None)
        if run is None or plan is None or not run.intent.look or run.intent.asked or self.guards.idle:
            return decision
        intent = replace(run.intent, training=plan.training)
        kept = self.guards.against(Start(state=state, now=now, policy=self.label, intent=intent, looked=True))
        if kept is None:
            return decision
        told = self._told_kept(state, record, replace(decision, wakes={}), kept)
        reason = f"{told.reason} What run {run.run} looked at stays pending."
        return replace(told, reason=reason, commands=(PostponeRun(run=run.run),))

    def spending(self, state: Pipeline, record: Record) -> Decision | None:
        """Return what the budget says of this policy's active run, if anything: ask it before all else."""
        if self.guards.budget is None:
            return None
        said = spending(state, record, self.label, self.guards.budget)
        return None if said is None else self.still_awaits(state, record, said)

    def still_awaits(self, state: Pipeline, record: Record, decision: Decision) -> Decision:
        """Return `decision`, which is about a run; a start that awaits an approval is told anew right after it."""
        standing = state.verdicts.get(self.label)
        if standing is None or standing.verdict != AWAITING:
            return decision
        return replace(decision, wakes={**decision.wakes, GUARD: record.recorded_at + SOON})

    def kept_back(self, state: Pipeline, since: int) -> bool:
        """Return whether a guard has kept a start back after a position: the occasion that made it due still stands."""
        standing = state.verdicts.get(self.label)
        return standing is not None and standing.verdict in VERDICTS and standing.position > since

    def _tried(
        self, state: Pipeline, record: Record, intent: Intent, *, brief: bool = False
    ) -> tuple[Intent, Guarded | None]:
        """Return the intent as it would be wished for, and what keeps it back."""
        now = record.recorded_at
        intent = self.guards.whole(state, self.label, intent, now)
        if asked(state, record, self.label, self.verbs) or stays(state, self.label):
            return replace(intent, asked=True), None
        return intent, self.guards.against(Start(state=state, now=now, policy=self.label, intent=intent, brief=brief))

    def _told_kept(self, state: Pipeline, record: Record, decision: Decision, kept: Guarded) -> Decision:
        """Return the decision as it is told where a guard keeps what is due from starting."""
        return replace(
            decision,
            verdict=kept.verdict,
            reason=f"{decision.reason} {kept.reason}",
            inputs={**decision.inputs, **kept.inputs},
            thresholds={**decision.thresholds, **kept.thresholds},
            wakes={**decision.wakes, **armed(state, self.label, GUARD, record.recorded_at, kept.until)},
        )


def blocked(state: Pipeline) -> bool:
    """Return whether the pending data already failed a run and nothing new has come since."""
    return state.failed_upto > 0 and state.last_arrival <= state.failed_upto


def finished_stage(record: Record, stage: str) -> bool:
    """Return whether the fact is the success of this stage."""
    return isinstance(record.event, StageSucceeded) and record.event.stage == stage
