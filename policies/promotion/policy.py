"""The gate: what may go live, when, and what has to go again."""

from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from daemon.core.commands import AnyCommand, HoldRun, RejectRun, ResumeRun, RollBack, RunStage, WithdrawWish
from daemon.core.decisions import Decision
from daemon.core.events import (
    ConfigurationChanged,
    DriftDetected,
    EvaluationReported,
    LabelArrived,
    ModelPromoted,
    Numbers,
    OperatorRequested,
    Record,
    StageSucceeded,
    TimerFired,
)
from daemon.core.runs import resume_key
from daemon.core.signals import LONGEST, REPORTED
from daemon.core.state import Pipeline, Run, timer_key
from policies.base import BasePolicy
from policies.promotion.judgement import Bounds, Judged, guarded, judge
from policies.promotion.watch import WatchSettings

FREEZE, WATCH = "freeze", "watch"
CONCERNED = (
    StageSucceeded,
    EvaluationReported,
    LabelArrived,
    DriftDetected,
    ModelPromoted,
    TimerFired,
    OperatorRequested,
    ConfigurationChanged,
)
"""The facts that anything follows from; all others are many, and are passed over at once."""
Bound = Annotated[float, Field(ge=0)]


class WindowSettings(BaseModel):
    """A span of time in which nothing goes live by itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    begins: AwareDatetime = Field(alias="from", description="the first instant of it, with its zone")
    until: AwareDatetime = Field(description="the first instant after it")
    reason: str = Field(default="", max_length=200, description="why, in a few words")

    @model_validator(mode="after")
    def _has_a_length(self) -> Self:
        if self.begins >= self.until:
            message = "`from` must lie before `until`"
            raise ValueError(message)
        return self


class Frozen(BaseModel):
    """That nothing goes live now: until when, where time alone ends it, and in a clause why."""

    model_config = ConfigDict(frozen=True)
    until: datetime | None
    why: str


class Promotion(BasePolicy):
    """The gate after evaluation: forgetting within bounds on every older domain, and a gain on the new ones.

    With `max_shift` new documents that lie further from the past are refused, however well they were learned.

    Losses are candidate minus champion on the same held-out documents, in nats per byte (a model that is not of
    language: its own loss per example). A bound counts as broken when the whole 95 % interval lies beyond it, as kept
    when the mean does; in between the candidate is undecided: it is held when `approval` is `undecided` or `always`,
    judged by the mean when it is `auto`. Of a `protected` domain the whole interval has to lie within its bound,
    whatever `approval` says. While the pipeline is frozen a good candidate is held, and taken up by itself afterwards.
    A champion that does worse than the one before, by what is reported on both within the watch, is rolled back.
    """

    version: ClassVar[int] = 3
    kind: Literal["promotion"] = "promotion"
    max_forgetting: float = Field(default=0.02, description="largest rise of an older domain's loss")
    min_gain: float = Field(default=0.0, description="smallest fall of the new domains' mean loss")
    max_shift: float | None = Field(
        default=None, gt=0, description="largest shift of the new documents, as the probe measured it"
    )
    protected: dict[str, Bound] = Field(
        default={}, max_length=64, description="domains with a veto: each with its own largest rise, kept for sure"
    )
    approval: Literal["auto", "undecided", "always"] = "auto"
    freeze: tuple[WindowSettings, ...] = Field(
        default=(), max_length=100, description="when nothing goes live by itself"
    )
    watch: WatchSettings | None = Field(default=None, description="what brings the champion before back")

    @property
    def signals(self) -> dict[str, int]:
        """The reports that the watch looks at."""
        return {} if self.watch is None else {self.watch.signal: LONGEST}

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Return the judgement once a candidate is evaluated; what follows from a freeze's end, or from a report."""
        event, now = record.event, record.recorded_at
        if not isinstance(event, CONCERNED):
            return None
        match event:
            case StageSucceeded(stage="evaluate"):
                judged = state.active
                return self._judged(state, judged, now) if judged is not None and judged.stage == "evaluate" else None
            case EvaluationReported() | LabelArrived() | DriftDetected():
                if self.watch is None or f"{REPORTED[event.kind]}.{event.metric}" != self.watch.signal:
                    return None
                return self._watched(self.watch, state, now)
            case ModelPromoted(run=run) if state.champion is not None and state.champion.run == run:
                return self._watching(state, now)
            case TimerFired(policy=self.label, key="watch"):
                return self._kept(state, now)
            case TimerFired(policy=self.label, key="freeze") | OperatorRequested(verb="thaw" | "freeze"):
                return self._thawed(state, now)
            case ConfigurationChanged() if self._waits(state):
                return self._thawed(state, now)
            case _:
                return None

    def opinion(self, state: Pipeline, record: Record) -> Decision | None:
        """Return what the gate waits for: the end of a freeze, the end of a watch; or the rollback that is due."""
        now = record.recorded_at
        due = self._watched(self.watch, state, now) if self.watch is not None else None
        if due is not None:
            return due
        frozen = self._frozen(state, now)
        if frozen is not None:
            held = state.held if state.held is not None and self._verdict(state, state.held)[0] == "promote" else None
            waits = f": the candidate of {held.run} waits for its end" if held is not None else ""
            wakes = {FREEZE: frozen.until} if frozen.until is not None else {}
            return Decision(
                verdict="frozen", reason=f"Nothing goes live by itself while it is {frozen.why}{waits}.", wakes=wakes
            )
        return self._watching(state, now)

    def _waits(self, state: Pipeline) -> bool:
        """Return whether a candidate waits for a freeze to end, or, now that it has, for its turn."""
        return timer_key(self.label, FREEZE) in state.timers or resume_key(self.label) in state.wishes

    # ------------------------------------------------------------------------------------ a candidate

    def _judged(self, state: Pipeline, run: Run, now: datetime) -> Decision:
        verdict, reason, judged = self._verdict(state, run)
        wakes: dict[str, datetime] = {}
        frozen = self._frozen(state, now)
        if verdict == "promote" and frozen is not None and not (run.approved or run.forced):
            verdict = "hold"
            reason = f"{reason} It is held: the pipeline is {frozen.why}."
            wakes = {FREEZE: frozen.until} if frozen.until is not None else {}
        commands: dict[str, AnyCommand] = {
            "promote": RunStage(run=run.run, stage="promote", attempt=run.attempts.get("promote", 0) + 1),
            "reject": RejectRun(run=run.run),
            "hold": HoldRun(run=run.run),
        }
        thresholds: Numbers = {"max_forgetting": self.max_forgetting, "min_gain": self.min_gain}
        if self.max_shift is not None:
            thresholds["max_shift"] = self.max_shift
        for domain in guarded(run, self.protected):
            thresholds[f"forgetting_high.{domain}"] = self.protected[domain]
        return Decision(
            verdict=verdict,
            reason=reason,
            inputs=judged.inputs,
            thresholds=thresholds,
            commands=(commands[verdict],),
            wakes=wakes,
        )

    def _verdict(self, state: Pipeline, run: Run) -> tuple[str, str, Judged]:
        """Return what is to become of a candidate as it was evaluated, but for a freeze."""
        judged = judge(run, self._bounds)
        verdict, reason = "promote", "The candidate keeps every bound."
        if state.champion is None:
            reason = "There is no champion yet: the first model is promoted."
        elif run.forced:
            reason = "An operator asked for this promotion."
        elif judged.vetoes:
            verdict, reason = "reject", "Refused: " + "; ".join(judged.vetoes + judged.faults) + "."
        elif not any(comparison.difference for comparison in run.evaluation.values()) and not run.approved:
            verdict, reason = "hold", "Nothing was measured against the champion: it waits for a person."
        elif judged.faults:
            verdict, reason = "reject", "Refused: " + "; ".join(judged.faults) + "."
        elif self.approval == "always" and not run.approved:
            verdict, reason = "hold", "Every promotion waits for an approval."
        elif judged.doubts and self.approval == "undecided" and not run.approved:
            verdict, reason = "hold", "Undecided: " + "; ".join(judged.doubts) + "."
        elif run.approved:
            reason = "An operator approved the candidate."
        return verdict, reason, judged

    @cached_property
    def _bounds(self) -> Bounds:
        return Bounds(self.max_forgetting, self.min_gain, self.protected, self.approval == "auto", self.max_shift)

    # ------------------------------------------------------------------------------------ the freeze

    @cached_property
    def _windows(self) -> tuple[tuple[datetime, datetime, str], ...]:
        return tuple(
            sorted((each.begins.astimezone(UTC), each.until.astimezone(UTC), each.reason) for each in self.freeze)
        )

    def _frozen(self, state: Pipeline, now: datetime) -> Frozen | None:
        """Return why nothing goes live by itself now; windows that touch are one."""
        until, why = now, ""
        for begins, ends, reason in self._windows:
            if begins <= until < ends:
                until, why = ends, why or reason
        if until > now:
            told = f"frozen until {until:%Y-%m-%d %H:%M} UTC" + (f" ({why})" if why else "")
            return Frozen(until=until, why=told)
        if state.frozen is not None:
            return Frozen(until=None, why=f"frozen by {state.frozen}, until somebody thaws it")
        return None

    def _thawed(self, state: Pipeline, now: datetime) -> Decision | None:
        """Take up the candidate that was held for the freeze alone; not when the next freeze comes first."""
        held, frozen = state.held, self._frozen(state, now)
        wished = resume_key(self.label) in state.wishes
        if held is None or (frozen is None and wished):
            return None
        if frozen is not None:
            wakes = {FREEZE: frozen.until} if frozen.until is not None else {}
            if wished:
                reason = f"The candidate of {held.run} stays held: the pipeline is {frozen.why}."
                withdraw = WithdrawWish(wish=resume_key(self.label))
                return Decision(verdict="hold", reason=reason, commands=(withdraw,), wakes=wakes)
            if not wakes or self._verdict(state, held)[0] != "promote":
                return None
            reason = f"The candidate of {held.run} is held: the pipeline is {frozen.why}."
            return Decision(verdict="hold", reason=reason, wakes=wakes)
        verdict, reason, judged = self._verdict(state, held)
        if verdict != "promote":
            return None
        following = next((begins for begins, _, _ in self._windows if begins > now), None)
        return Decision(
            verdict="thawed",
            reason=f"The freeze is over: the candidate of {held.run} is taken up again. {reason}",
            inputs=judged.inputs,
            commands=(ResumeRun(run=held.run),),
            wakes={FREEZE: following} if following is not None else {},
        )

    # ------------------------------------------------------------------------------------ the watch

    def _watching(self, state: Pipeline, now: datetime) -> Decision | None:
        """Return that a new champion is watched, and until when."""
        ends = self.watch.ends(state) if self.watch is not None else None
        if self.watch is None or ends is None or ends <= now or state.champion is None or state.previous is None:
            return None
        inputs, thresholds = self.watch.numbers(state, self.watch.compare(state))
        return Decision(
            verdict="watched",
            reason=(
                f"Version {state.champion.version} is watched until {ends:%Y-%m-%d %H:%M} UTC: "
                f"{self.watch.signal} against version {state.previous.version}."
            ),
            inputs=inputs,
            thresholds=thresholds,
            wakes={WATCH: ends},
        )

    def _watched(self, watch: WatchSettings, state: Pipeline, now: datetime) -> Decision | None:
        """Return the rollback, once the reports ask for it."""
        ends = watch.ends(state)
        if ends is None or now > ends or state.champion is None or state.previous is None:
            return None
        found = watch.compare(state)
        if found is None or not watch.failed(found):
            return None
        inputs, thresholds = watch.numbers(state, found)
        return Decision(
            verdict="rolled_back",
            reason=(
                f"Version {state.champion.version} does worse than version {state.previous.version}, which is champion "
                f"again: {watch.told(found)}; worse by {found.worse:.4g}, where {watch.tolerance:g} is tolerated and "
                f"chance explains {found.noise:.2g}."
            ),
            inputs=inputs,
            thresholds=thresholds,
            commands=(RollBack(),),
        )

    def _kept(self, state: Pipeline, now: datetime) -> Decision | None:
        """Return that the watch is over and the champion stays."""
        ends = self.watch.ends(state) if self.watch is not None else None
        if self.watch is None or ends is None or now < ends or state.champion is None:
            return None
        found = self.watch.compare(state)
        inputs, thresholds = self.watch.numbers(state, found)
        why = self.watch.told(found) if found else f"there were too few reports of {self.watch.signal} to compare"
        reason = f"The watch over version {state.champion.version} has ended and it stays: {why}."
        return Decision(verdict="kept", reason=reason, inputs=inputs, thresholds=thresholds)
