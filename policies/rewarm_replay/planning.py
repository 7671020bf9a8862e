"""How the plan of an increment is fixed after its probe: peak, replay and tokens, by the planner or by the shift."""

from itertools import pairwise
from typing import Annotated, Literal, Self

from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, Field, model_validator

from daemon.core.commands import CancelRun, FixPlan
from daemon.core.decisions import Decision, rounded
from daemon.core.events import Numbers
from daemon.core.plans import Plan, Prediction, ReplayChoice, Replaying, ScheduleKind, Training, budget, tokens
from daemon.core.plans.planner import Options, choose, measured, predict, traits
from daemon.core.plans.replaying import by_increase, even, phases
from daemon.core.state import Pipeline, Run
from policies.base import Share, Starting

Factor = Annotated[float, Field(gt=0, le=10)]


class PhaseSettings(BaseModel):
    """A part of a run, and how much is replayed in it against the other parts."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    until: float = Field(gt=0, le=1, description="share of the run's steps at which the part ends")
    factor: float = Field(ge=0, description="its replay against that of the other parts")


class WeightSettings(BaseModel):
    """What a nat per byte is worth on old and on new domains."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    old: float = Field(default=1.0, ge=0, description="weight of what is forgotten")
    new: float = Field(default=1.0, ge=0, description="weight of what is gained")


class PlannerSettings(BaseModel):
    """When the planner's law may speak, and what it chooses among."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    weights: WeightSettings = WeightSettings()
    price: float = Field(default=0.01, ge=0, description="nats per byte that a run of twice the tokens has to win")
    least_runs: int = Field(default=3, ge=3, description="past runs before it speaks")
    most_error: float = Field(
        default=0.02, gt=0, description="mean error of the law, nats per byte, up to which it speaks"
    )
    stretch: float = Field(default=2.0, ge=1, description="how many times beyond past runs a choice may lie")
    peaks: tuple[Factor, ...] = Field(default=(0.5, 0.7, 1.0, 1.4, 2.0), min_length=1, description="factors of `peak`")
    replays: tuple[Share, ...] = Field(
        default=(0.01, 0.02, 0.05, 0.1, 0.25, 0.5), min_length=1, description="replayed shares"
    )
    budgets: tuple[Factor, ...] = Field(default=(0.5, 1.0), min_length=1, description="factors of `epochs`")

    def options(self) -> Options:
        """Return them as the planner takes them."""
        return Options(
            old=self.weights.old,
            new=self.weights.new,
            price=self.price,
            peaks=self.peaks,
            replays=self.replays,
            budgets=self.budgets,
            stretch=self.stretch,
        )


class Planning(Starting):
    """Base of a policy that fixes the plans of its increments.

    With `replay: auto` peak, replay and tokens are the planner's, once its law fits enough past runs; until then the
    share of old tokens follows from the shift (the champion's loss on the new data above its loss on the old) in
    three steps: the defaults are those of the paper's weak and strong shifts, section 6.
    """

    schedule: ScheduleKind = "rewarm"
    replay: Share | Literal["auto"] = Field(default="auto", description="share of old tokens in every batch")
    weak_shift: float = Field(default=0.02, ge=0, description="nats per byte: below it `weak_replay` is replayed")
    strong_shift: float = Field(default=0.7, ge=0, description="nats per byte: from it on `strong_replay` is replayed")
    weak_replay: Share = Field(default=0.01, description="share of old tokens below `weak_shift`")
    mild_replay: Share = Field(default=0.05, description="share of old tokens between the two, or without a shift")
    strong_replay: Share = Field(default=0.25, description="share of old tokens from `strong_shift` on")
    replay_schedule: tuple[PhaseSettings, ...] = Field(
        default=(), description="where in the run more is replayed and where less; the share in all stays"
    )
    replay_choice: ReplayChoice = Field(default="uniform", description="what is replayed more often")
    planner: PlannerSettings | Literal["off"] = Field(
        default=PlannerSettings(), description="what chooses the plan of `replay: auto`, or `off`"
    )

    @model_validator(mode="after")
    def _shifts_in_order(self) -> Self:
        if self.weak_shift > self.strong_shift:
            message = "`weak_shift` must not lie above `strong_shift`"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _phases_in_order(self) -> Self:
        ends = [phase.until for phase in self.replay_schedule]
        if ends and (ends[-1] != 1 or any(b <= a for a, b in pairwise(ends))):
            message = "each `until` of `replay_schedule` must lie above the one before, and the last must be 1"
            raise ValueError(message)
        if ends and not any(phase.factor for phase in self.replay_schedule):
            message = "a `factor` of `replay_schedule` must lie above 0"
            raise ValueError(message)
        return self

    def fix(self, state: Pipeline, run: Run) -> Decision:
        """Return the plan, or the end of a run whose new data was withdrawn or rejected meanwhile."""
        if run.plan.kind != "retrain" and not run.plan.new:
            reason = (
                "Nothing is left of the new data, which was withdrawn or could not be used: there is nothing to do."
            )
            return Decision(verdict="nothing_left", reason=reason, commands=(CancelRun(run=run.run),))
        draft = self._peaked(state, run)
        draft = replace(draft, training=replace(draft.training, replaying=self._weighed(state, run)))
        run = replace(run, plan=draft)
        training, rule, prediction = self._chosen(run, state.champion.best if state.champion else {})
        training = replace(training, replaying=self._scheduled(training))
        plan = replace(run.plan, training=training, rule=rule, prediction=prediction)
        inputs, thresholds = self._compared(run, prediction)
        return Decision(
            verdict="planned",
            reason=f"Train on {training.tokens:,} tokens, {training.replay:.0%} of them replayed: {rule}.",
            inputs={**inputs, "new_tokens": tokens(run.plan.new)},
            thresholds=thresholds,
            commands=(FixPlan(run=run.run, plan=plan),),
        )

    def _peaked(self, state: Pipeline, run: Run) -> Plan:
        """Return the draft with the peak that falls over increments, now that the tokens are counted."""
        champion = state.champion
        if not self.training.falling_peak or run.plan.kind != "increment" or champion is None:
            return run.plan
        schedule = self.training.schedule(
            run.plan.training.schedule.kind, first=False, trained=champion.trained, new=run.plan.training.tokens
        )
        return replace(run.plan, training=replace(run.plan.training, schedule=schedule))

    def _chosen(self, run: Run, best: dict[str, float]) -> tuple[Training, str, Prediction | None]:
        """Return the training by whichever rule speaks, the rule, and what the law expects of it."""
        before = measured(
            run.plan, run.probe_past, run.probe_new, best=best, highest=run.law.highest if run.law else {}
        )
        planner = self.planner if isinstance(self.planner, PlannerSettings) else None
        silence = ""
        if planner is not None and self.replay == "auto" and run.law is not None and run.plan.kind == "increment":
            silence = self._silence(planner, run)
            choice = None
            if not silence:
                epochs, most, options = run.intent.epochs, run.intent.max_tokens, planner.options()
                choice = choose(run.law, run.plan, before, epochs=epochs, most=most, options=options)
                silence = f"nothing within {planner.stretch:g} x of what past runs had can be chosen"
            if choice is not None:
                rule = f"the planner's law of {run.law.runs} runs, error {run.law.error:.3f}"
                return choice.training, rule, choice.prediction
        replay, rule = self._share(run)
        training = replace(run.plan.training, replay=replay)
        if run.plan.kind != "retrain":
            total = budget(tokens(run.plan.new), replay, run.intent.epochs, run.intent.max_tokens)
            training = replace(training, tokens=total)
        seen = traits(run.plan, training, before) if run.law is not None and run.plan.kind == "increment" else None
        prediction = predict(run.law, seen, before) if run.law is not None and seen is not None else None
        return training, f"{rule} (the planner is silent: {silence})" if silence else rule, prediction

    @staticmethod
    def _silence(planner: PlannerSettings, run: Run) -> str:
        """Return why the planner's law may not choose; "" when it may."""
        law = run.law
        if law is None or law.error is None or law.runs < planner.least_runs:
            return f"{law.runs if law else 0} of {planner.least_runs} runs"
        if rounded(law.error) > planner.most_error:
            return f"error {law.error:.3f} of {law.runs} runs, allowed {planner.most_error:g}"
        return ""

    def _share(self, run: Run) -> tuple[float, str]:
        if not tokens(run.plan.past):
            return 0.0, "there is no past to replay"
        if self.replay != "auto":
            return self.replay, "the share is configured"
        if run.shift is None:
            return self.mild_replay, f"no shift was measured, so the default of {self.mild_replay:.0%}"
        shift, unit = rounded(run.shift), run.plan.model.unit
        if shift < self.weak_shift:
            return self.weak_replay, f"a shift of {shift:.3f} is below {self.weak_shift:g} {unit}"
        if shift < self.strong_shift:
            return self.mild_replay, f"a shift of {shift:.3f} lies below {self.strong_shift:g} {unit}"
        return self.strong_replay, f"a shift of {shift:.3f} is strong (from {self.strong_shift:g} {unit})"

    def _weighed(self, state: Pipeline, run: Run) -> Replaying:
        """Return what is replayed more often; the law looks at it too."""
        domains = sorted(run.plan.past)
        if not domains or run.plan.kind == "retrain":
            return Replaying()
        weights: dict[str, float] = {}
        if self.replay_choice == "per_domain":
            weights = even(domains)
        elif self.replay_choice == "loss_increase":
            now = {domain: loss.mean for domain, loss in run.probe_past.items()}
            weights = by_increase(domains, now, state.champion.best if state.champion else {})
        return Replaying(choice=self.replay_choice, weights=weights)

    def _scheduled(self, training: Training) -> Replaying:
        """Return when it is replayed, once the share is fixed; nothing where nothing is."""
        if not training.replay:
            return Replaying()
        parts = [(phase.until, phase.factor) for phase in self.replay_schedule]
        return replace(training.replaying, phases=phases(parts, training.replay))

    def _compared(self, run: Run, prediction: Prediction | None) -> tuple[Numbers, Numbers]:
        """Return the numbers behind the plan, and what they were held against."""
        inputs: Numbers = {"shift": rounded(run.shift) if run.shift is not None else None}
        thresholds: Numbers = {"weak_shift": self.weak_shift, "strong_shift": self.strong_shift}
        if run.law is not None:
            inputs |= {"law_runs": run.law.runs, "law_error": run.law.error}
        if run.law is not None and isinstance(self.planner, PlannerSettings):
            thresholds |= {"law_runs": self.planner.least_runs, "law_error": self.planner.most_error}
        if prediction is not None:
            inputs |= {"expected_forgetting": prediction.forgetting, "expected_gain": prediction.gain}
        return inputs, thresholds
