"""The watch over a new champion: live quality that outside reports, against the champion's before it."""

from datetime import datetime, timedelta
from math import sqrt
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from daemon.core.decisions import rounded
from daemon.core.events import Numbers
from daemon.core.signals import LONGEST
from daemon.core.state import Pipeline
from policies.periods import Period

Z = 1.96
"""Standard errors on either side of a difference that chance alone passes in one case of twenty."""
FEWEST = 2
"""Values below which nothing is known of their spread."""


class Compared(NamedTuple):
    """The reports of both champions; `worse` is how much worse the new one's mean is (below 0: better).

    `noise` is Z standard errors of that difference, sqrt(s1² / n1 + s2² / n2) each; 0 where a spread is not known.
    """

    reports: int
    reports_before: int
    mean: float
    mean_before: float
    worse: float
    noise: float


class WatchSettings(BaseModel):
    """How long the reports on a new champion are held against those on the one before, and when it has to go."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    signal: str = Field(
        pattern=r"^(evaluation|label|detected)\.\S{1,100}$", description="what reports it: evaluation.accuracy"
    )
    better: Literal["higher", "lower"] = Field(description="which values are good ones")
    span: Period = Field(default=timedelta(days=1), alias="for", description="how long after a promotion")
    least: int = Field(default=3, ge=1, le=LONGEST // 2, description="reports on each champion before it is judged")
    tolerance: float = Field(default=0.0, ge=0, description="how much worse its mean may be")

    def ends(self, state: Pipeline) -> datetime | None:
        """Return when the watch over the champion ends; None: there is nothing to go back to."""
        if state.champion is None or state.previous is None:
            return None
        return state.champion.promoted_at + self.span

    def compare(self, state: Pipeline) -> Compared | None:
        """Return the two champions' reports; None until there are enough of each. Those on other versions are none."""
        after, before = self._reported(state)
        if len(after) < self.least or len(before) < self.least:
            return None
        mean, mean_before = sum(after) / len(after), sum(before) / len(before)
        worse = mean_before - mean if self.better == "higher" else mean - mean_before
        noise = 0.0
        if min(len(after), len(before)) >= FEWEST:
            noise = Z * sqrt(_square(after, mean) + _square(before, mean_before))
        return Compared(
            reports=len(after),
            reports_before=len(before),
            mean=rounded(mean),
            mean_before=rounded(mean_before),
            worse=rounded(worse),
            noise=rounded(noise),
        )

    def _reported(self, state: Pipeline) -> tuple[list[float], list[float]]:
        """Return the values reported on the champion and on the one before."""
        champion, previous = state.champion, state.previous
        if champion is None or previous is None:
            return [], []
        series = state.signals.get(self.signal, ())
        after = [reading.value for reading in series if reading.version == champion.version]
        return after, [reading.value for reading in series if reading.version == previous.version]

    def failed(self, found: Compared) -> bool:
        """Return whether the new champion is worse by more than the tolerance, and by more than chance explains."""
        return found.worse > self.tolerance and found.worse > found.noise

    def told(self, found: Compared) -> str:
        """Return the reports in a clause."""
        return (
            f"{self.signal} is {found.mean:.4g} over {found.reports} reports, "
            f"{found.mean_before:.4g} over {found.reports_before} before it"
        )

    def numbers(self, state: Pipeline, found: Compared | None) -> tuple[Numbers, Numbers]:
        """Return what was compared, and what it was held against; before there is enough, how much there is."""
        if found is None:
            after, before = self._reported(state)
            counted: Numbers = {"reports": len(after), "reports_before": len(before)}
            return counted, {"tolerance": self.tolerance, "reports": self.least, "reports_before": self.least}
        inputs: Numbers = dict(found._asdict())
        del inputs["noise"]
        thresholds: Numbers = {
            "tolerance": self.tolerance,
            "noise": found.noise,
            "reports": self.least,
            "reports_before": self.least,
        }
        return inputs, thresholds


def _square(values: list[float], mean: float) -> float:
    """Return the squared standard error of a mean."""
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values)
