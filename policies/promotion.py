"""Judge a candidate: promote, reject, or hold it for a person, domain by domain."""

from typing import ClassVar, Literal

from pydantic import Field

from daemon.core.commands import AnyCommand, HoldRun, RejectRun, RunStage
from daemon.core.decisions import Decision, rounded
from daemon.core.events import Numbers, Record
from daemon.core.state import Pipeline, Run
from policies.base import BasePolicy, finished_stage

FEWEST = 2
"""Documents below which an interval over documents says nothing."""


class Promotion(BasePolicy):
    """The gate after evaluation: forgetting within bounds on every older domain, and a gain on the new ones.

    Losses are candidate minus champion on the same held-out documents, in nats per byte (a model that is not of
    language: its own loss per example). A bound counts as broken when the whole 95 % interval lies beyond it, as kept
    when the mean does; in between the candidate is undecided: it is held when `approval` is `undecided` or `always`,
    judged by the mean when it is `auto`.
    """

    version: ClassVar[int] = 2
    kind: Literal["promotion"] = "promotion"
    max_forgetting: float = Field(default=0.02, description="largest rise of an older domain's loss")
    min_gain: float = Field(default=0.0, description="smallest fall of the new domains' mean loss")
    approval: Literal["auto", "undecided", "always"] = "auto"

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Return the judgement once the evaluate stage is done."""
        run = state.active
        if run is None or not finished_stage(record, "evaluate") or run.stage != "evaluate":
            return None
        return self._judge(state, run)

    def _judge(self, state: Pipeline, run: Run) -> Decision:
        promote = RunStage(run=run.run, stage="promote", attempt=run.attempts.get("promote", 0) + 1)
        inputs, faults, doubts = self._compare(run)
        thresholds: Numbers = {"max_forgetting": self.max_forgetting, "min_gain": self.min_gain}
        verdict, reason = "promote", "The candidate keeps every bound."
        if state.champion is None:
            reason = "There is no champion yet: the first model is promoted."
        elif run.forced:
            reason = "An operator asked for this promotion."
        elif not any(comparison.difference for comparison in run.evaluation.values()) and not run.approved:
            verdict, reason = "hold", "Nothing was measured against the champion: it waits for a person."
        elif faults:
            verdict, reason = "reject", "Refused: " + "; ".join(faults) + "."
        elif self.approval == "always" and not run.approved:
            verdict, reason = "hold", "Every promotion waits for an approval."
        elif doubts and self.approval == "undecided" and not run.approved:
            verdict, reason = "hold", "Undecided: " + "; ".join(doubts) + "."
        elif run.approved:
            reason = "An operator approved the candidate."
        commands: dict[str, AnyCommand] = {
            "promote": promote,
            "reject": RejectRun(run=run.run),
            "hold": HoldRun(run=run.run),
        }
        command = commands[verdict]
        return Decision(verdict=verdict, reason=reason, inputs=inputs, thresholds=thresholds, commands=(command,))

    def _compare(self, run: Run) -> tuple[Numbers, list[str], list[str]]:
        inputs: Numbers = {}
        faults: list[str] = []
        doubts: list[str] = []
        gains = []
        for domain in sorted(run.evaluation):
            comparison = run.evaluation[domain]
            inputs[f"loss.{domain}"] = rounded(comparison.candidate.mean)
            difference = comparison.difference
            if difference is None:
                continue
            mean, low, high = (rounded(x) for x in (difference.mean, difference.low, difference.high))
            if difference.documents < FEWEST:
                doubts.append(f"{domain} was measured on one document")
            older = domain in run.plan.past
            if older:
                inputs[f"forgetting.{domain}"] = mean
                if mean > self.max_forgetting:
                    sure = (low > self.max_forgetting and difference.documents >= FEWEST) or self.approval == "auto"
                    (faults if sure else doubts).append(
                        f"{domain} is forgotten by {mean:.4f} {run.plan.model.unit} (at most {self.max_forgetting:g})"
                    )
                elif high > self.max_forgetting:
                    doubts.append(f"forgetting of {domain} may reach {high:.4f}")
            if domain in run.plan.new:
                gains.append((mean, low, high))
        if gains:
            self._gain(gains, run.plan.model.unit, inputs, faults, doubts)
        return inputs, faults, doubts

    def _gain(
        self,
        gains: list[tuple[float, float, float]],
        unit: str,
        inputs: Numbers,
        faults: list[str],
        doubts: list[str],
    ) -> None:
        gain = rounded(-sum(mean for mean, _, _ in gains) / len(gains))
        best = rounded(-sum(low for _, low, _ in gains) / len(gains))
        inputs["gain"] = gain
        if gain < self.min_gain:
            sure = best < self.min_gain or self.approval == "auto"
            (faults if sure else doubts).append(f"the gain is {gain:.4f} {unit} (at least {self.min_gain:g})")
        elif rounded(-sum(high for _, _, high in gains) / len(gains)) < self.min_gain:
            doubts.append(f"the gain of {gain:.4f} may be below {self.min_gain:g}")
