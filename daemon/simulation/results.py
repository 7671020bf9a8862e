"""What stages bring by the cost model: measurements, a band of the past, losses, a champion."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import Final

from daemon.core.events import (
    AnyEvent,
    Comparison,
    DataCurated,
    Loss,
    ModelEvaluated,
    ModelPromoted,
    ProbeMeasured,
)
from daemon.core.plans import NOTHING, Checkpoint, add
from daemon.core.state import Pipeline, Run
from daemon.simulation.book import Entry
from daemon.simulation.costs import Costs
from stages.base import Names

SHA: Final = "0" * 64
LOSS: Final = 1.5
"""What every champion loses: decisions look at differences alone."""
DOCUMENTS: Final = 50
BYTES: Final = 50_000


class Results:
    """What an attempt under these names would bring; `arrivals` are those that a probe measures."""

    def __init__(
        self,
        names: Names,
        pipeline: Pipeline,
        run: Run,
        *,
        costs: Costs,
        random: Random,
        arrivals: Sequence[Entry],
    ) -> None:
        self._names, self._pipeline, self._run = names, pipeline, run
        self._costs, self._random, self._arrivals = costs, random, arrivals

    def tell(self, stage: str) -> Iterator[AnyEvent]:
        """Yield what an attempt of a stage brings when it succeeds."""
        match stage:
            case "probe":
                yield self._probe()
            case "curate":
                yield self._curation()
            case "evaluate":
                yield self._evaluation()
            case "promote":
                yield self._promotion()

    def _probe(self) -> ProbeMeasured:
        plan = self._run.plan
        shift = self._costs.shift.draw(self._random)
        if self._pipeline.champion is None or not plan.past or not plan.new:
            return ProbeMeasured(**self._names, new={}, past={}, shift=None)
        drift = {how: abs(each.draw(self._random)) for how, each in self._costs.drift.items()}
        expected = self._costs.expected_gain.draw(self._random)
        measured = [
            (self._costs.measured[entry.recorded], max(1, entry.amount.tokens))
            for entry in self._arrivals
            if entry.recorded in self._costs.measured
        ]
        if measured:  # the very arrivals were measured: nothing is drawn that is known
            shift = _mean([(each.shift, weight) for each, weight in measured])
            for how, drawn in drift.items():
                known = [(each.drift[how], weight) for each, weight in measured if how in each.drift]
                drift[how] = _mean(known) if known else drawn
        new = {domain: _loss(LOSS + shift, 0.0) for domain in sorted(plan.new)}
        past = {domain: _loss(LOSS, 0.0) for domain in sorted(plan.past)}
        return ProbeMeasured(**self._names, new=new, past=past, shift=shift, drift=drift, expected_gain=expected)

    def _curation(self) -> DataCurated:
        plan = self._run.plan
        whole, share = sum(add(plan.new, plan.past).values(), NOTHING), self._costs.kept.share
        return DataCurated(
            **self._names,
            documents=whole.documents,
            tokens=whole.tokens,
            kept=round(share * whole.documents),
            kept_tokens=round(share * whole.tokens),
            manifest="simulated",
            sha256=SHA,
        )

    def _evaluation(self) -> ModelEvaluated:
        plan, first = self._run.plan, self._pipeline.champion is None
        domains = {}
        for domain in sorted({*plan.new, *plan.past}):
            figure = self._costs.gain_of(domain) if domain in plan.new else self._costs.forgetting_of(domain)
            drawn = figure.draw(self._random)
            change = -drawn if domain in plan.new else drawn
            domains[domain] = Comparison(
                candidate=_loss(LOSS + change, figure.half),
                champion=None if first else _loss(LOSS, figure.half),
                difference=None if first else _loss(change, figure.half),
            )
        candidate = Checkpoint(path=f"simulated/{self._run.run}/candidate", sha256=SHA)
        return ModelEvaluated(**self._names, domains=domains, candidate=candidate)

    def _promotion(self) -> ModelPromoted:
        plan, version = self._run.plan, self._pipeline.versions + 1
        return ModelPromoted(
            **self._names,
            model_version=version,
            path=f"simulated/v{version}",
            sha256=SHA,
            trunk=Checkpoint(path=f"simulated/v{version}/trunk", sha256=SHA),
            parent=plan.parent,
            spans=plan.spans,
            losses={domain: each.candidate.mean for domain, each in self._run.evaluation.items()},
        )


def _mean(weighted: Sequence[tuple[float, int]]) -> float:
    return round(sum(value * weight for value, weight in weighted) / sum(weight for _, weight in weighted), 9)


def _loss(mean: float, half: float) -> Loss:
    mean = round(mean, 9)
    low, high = round(mean - half, 9), round(mean + half, 9)
    return Loss(mean=mean, low=low, high=high, documents=DOCUMENTS, bytes=BYTES)
