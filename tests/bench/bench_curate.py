"""Does training on the band that `curate` keeps beat training on everything, where a third of the labels are wrong?

Run by hand, never by pytest: `make bench-curate` (SEED= the first of the seeds). The classifier of
docs/examples/digits, scikit-learn's digits, 35 % of the training labels replaced by wrong ones; the test labels are
right. An expert is trained on the first third and promoted. Then everything is trained on four ways, each by the real
stages: continuing the expert or anew from the base (new weights: before the expert there is no model), on all data or
on the band that the real stage chose with its defaults, told nothing of the noise. Every way of a length has the same
budget; the trials of the band come on top.

There are two lengths. The long one (150 epochs, the claims are of it) learns wrong labels by heart where it may; the
short one (30, those of the example) ends before it does, and shows where a filter has nothing to mend.

Intervals are paired bootstraps over seeds: all ways of a seed have the same data, noise and test digits.
"""

import importlib
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from msgspec.structs import replace
from safetensors.torch import load_model

import stages.training  # noqa: F401 - before torch computes: it says how torch's threads wait
from daemon.core.encoding import decode
from daemon.core.events import AnyEvent, DataCurated, DataIngested, ModelPromoted, StageFailed
from daemon.core.plans import Checkpoint, Curation, DataSettings, Limits, ModelSettings, Plan, Schedule, Start, Training
from stages.execute import execute
from stages.run_folder import Arrival, Champion, Shard, Specification, lines, place_specification
from tests.bench.targets import ROOT, Figure, report

SEED = int(os.environ.get("SEED", "1"))
SEEDS = range(SEED, SEED + 5)
NOISE = 0.35
TEST = 450
EXPERT = 449
"""Digits for the test, and of the others those that the expert is trained on: a third."""
CLASSES = 10
EXPERT_EPOCHS = 20
LENGTHS = {"long": 150, "short": 30}
BATCH = 32
SCHEDULE = Schedule(kind="rewarm", peak=3e-3, floor=1e-4, plateau=1e-3, warmup=0.05)
RESAMPLES = 10_000
INTERVAL = (2.5, 97.5)
STAGES = ("ingest", "train", "evaluate", "promote")
ARMS = (("continue", "all"), ("base", "all"), ("base", "band"), ("continue", "band"))
Scores = npt.NDArray[np.float64]
sys.path.insert(0, str(ROOT / "docs" / "examples" / "digits"))


class Digits(msgspec.Struct, frozen=True, kw_only=True):
    """One seed's data: arrivals with wrong labels, and digits with right ones to be judged on."""

    arrivals: tuple[Path, Path]
    count: int
    pixels: torch.Tensor
    labels: torch.Tensor


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """A way to train: its share of right answers and its loss, both by right labels, and what was curated."""

    accuracy: float
    loss: float
    curated: DataCurated | None


Way = tuple[str, str, str]
"""How long, from where, on what."""


class Seed:
    """One seed's pipeline in a state folder of its own."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.state = folder / "state"
        self.inbox = folder / "inbox"
        self.state.mkdir(parents=True)
        self.inbox.mkdir()
        self.seed = seed
        self.digits = self.draw()

    def draw(self) -> Digits:
        """Return this seed's digits; a wrong label is any of the other nine."""
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]

        images, labels = load_digits(return_X_y=True)
        generator = np.random.default_rng(self.seed)
        order = generator.permutation(len(labels))
        test, rest = order[:TEST], order[TEST:]
        wrong = generator.permutation(len(rest))[: round(NOISE * len(rest))]
        told = labels.copy()
        told[rest[wrong]] = (told[rest[wrong]] + generator.integers(1, CLASSES, size=len(wrong))) % CLASSES
        paths = []
        for name, part in (("first", rest[:EXPERT]), ("then", rest[EXPERT:])):
            records = ({"pixels": images[at].astype(int).tolist(), "digit": int(told[at])} for at in part)
            paths.append(self.inbox / f"{name}.jsonl")
            paths[-1].write_text("".join(json.dumps(record) + "\n" for record in records))
        pixels = torch.tensor(images[test], dtype=torch.float32) / 16
        return Digits(arrivals=(paths[0], paths[1]), count=len(rest), pixels=pixels, labels=torch.tensor(labels[test]))

    def stage(self, run: str, stage: str, **fields: object) -> tuple[Path, list[AnyEvent]]:
        """Carry out one stage in this process; raises RuntimeError when it fails."""
        folder = self.state / "runs" / run / stage / "1"
        given = {"threads": 1, "roots": (str(self.inbox),), **fields}
        specification = Specification(
            pipeline="digits",
            run=run,
            stage=stage,
            attempt=1,
            command=f"1/digits/{run}/0",
            implementation=stage,
            state=str(self.state),
            **given,  # type: ignore[arg-type]
        )
        place_specification(folder, specification)
        execute(folder)
        found = [json.loads(line) for line in lines(folder)]
        events = [decode(each["kind"], each["version"], msgspec.json.encode(each["data"])) for each in found]
        failed = next((event for event in events if isinstance(event, StageFailed)), None)
        if failed is not None:
            raise RuntimeError(f"{run}, {stage}: {failed.message}")
        return folder, events

    def ingest(self, number: int, past: tuple[Shard, ...]) -> tuple[Shard, ...]:
        """Return the shard of an arrival."""
        path = self.digits.arrivals[number]
        size, count = path.stat().st_size, len(path.read_text().splitlines())
        arrival = Arrival(
            position=number + 1,
            path=str(path),
            format="jsonl",
            domain="digits",
            bytes=size,
            tokens=count,
            documents=count,
        )
        plan = self.plan(Start(kind="scratch"), 1, 1)
        _, events = self.stage(f"ingest-{number}", "ingest", plan=plan, arrivals=(arrival,), past=past)
        return tuple(
            Shard(position=event.arrival, domain=event.domain, manifest=event.manifest)
            for event in events
            if isinstance(event, DataIngested)
        )

    def plan(self, start: Start, examples: int, epochs: int, curation: Curation | None = None) -> Plan:
        """Return a plan that sees so many examples so often."""
        training = Training(
            tokens=examples * epochs,
            batch=BATCH,
            context=1,
            replay=0.0,
            schedule=SCHEDULE,
            optimiser="reset",
            seed=self.seed,
        )
        return Plan(
            kind="retrain",
            start=start,
            parent=None,
            spans=(),
            new={},
            past={},
            model=ModelSettings(kind="module", factory="digits:make"),
            stages=STAGES,
            training=replace(training, adamw=replace(training.adamw, weight_decay=0.01)),
            limits=Limits(),
            data=DataSettings(held_out=0.05),
            curation=curation,
        )

    def expert(self, shards: tuple[Shard, ...]) -> tuple[Champion, float]:
        """Train the expert on the first third and promote it; return it and how well it does."""
        given = {"plan": self.plan(Start(kind="scratch"), EXPERT, EXPERT_EPOCHS), "new": shards}
        done: dict[str, str] = {}
        for stage in ("train", "evaluate", "promote"):
            folder, events = self.stage("expert", stage, **given, done=done)
            done[stage] = str(folder)
        (promoted,) = [event for event in events if isinstance(event, ModelPromoted)]
        model = Checkpoint(path=promoted.path, sha256=promoted.sha256)
        return Champion(version=1, model=model, trunk=promoted.trunk), self.judged(Path(done["train"]))[0]

    def arm(self, champion: Champion, shards: tuple[Shard, ...], length: str, start: str, data: str) -> Tried:
        """Train on everything or on the band."""
        begin = Start(kind="scratch")
        if start == "continue":
            begin = Start(kind="champion", version=1, checkpoint=champion.trunk)
        run = f"{length}-{start}-{data}"
        plan = self.plan(begin, self.digits.count, LENGTHS[length], Curation() if data == "band" else None)
        given = {"plan": plan, "past": shards, "champion": champion}
        done: dict[str, str] = {}
        curated = None
        if data == "band":
            folder, events = self.stage(run, "curate", **given)
            (curated,) = [event for event in events if isinstance(event, DataCurated)]
            done["curate"] = str(folder)
        folder, _ = self.stage(run, "train", **given, done=done)
        accuracy, loss = self.judged(folder)
        return Tried(accuracy=accuracy, loss=loss, curated=curated)

    def judged(self, folder: Path) -> tuple[float, float]:
        """Return a candidate's share of right answers on the test digits, and its mean loss there in nats."""
        model = importlib.import_module("digits").Classifier()
        load_model(model, folder / "candidate" / "model.safetensors")
        model.eval()
        with torch.inference_mode():
            logits = model(self.digits.pixels)
            loss = torch.nn.functional.cross_entropy(logits, self.digits.labels)
        return float((logits.argmax(dim=1) == self.digits.labels).double().mean()), float(loss)

    def live(self) -> tuple[float, dict[Way, Tried]]:
        """Return how well the expert does, and every way of both lengths."""
        first = self.ingest(0, ())
        both = (*first, *self.ingest(1, first))
        champion, expert = self.expert(first)
        return expert, {(length, *arm): self.arm(champion, both, length, *arm) for length in LENGTHS for arm in ARMS}


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """A mean over seeds with its 95 % interval, in points of accuracy."""

    mean: float
    low: float
    high: float


def over_seeds(values: Scores) -> Measured:
    """Return the mean over seeds; what is compared is a difference of each seed, so that it is paired."""
    drawn = np.random.default_rng(SEED).choice(values, size=(RESAMPLES, len(values))).mean(axis=1)
    low, high = np.percentile(drawn, INTERVAL)
    return Measured(
        mean=round(100 * float(values.mean()), 2), low=round(100 * float(low), 2), high=round(100 * float(high), 2)
    )


def words(measured: Measured) -> str:
    """Return it for people."""
    return f"{measured.mean:+.1f} [{measured.low:+.1f}, {measured.high:+.1f}] points"


def main() -> int:
    """Run every seed, and report the smaller of the two gains of the band."""
    began = time.monotonic()
    experts: list[float] = []
    lives: list[dict[Way, Tried]] = []
    with tempfile.TemporaryDirectory(prefix="bench-curate-") as folder:
        for seed in SEEDS:
            expert, found = Seed(Path(folder) / str(seed), seed).live()
            experts.append(expert)
            lives.append(found)
            told = ", ".join(f"{start} {data} {found['long', start, data].accuracy:.3f}" for start, data in ARMS)
            print(f"Seed {seed} after {time.monotonic() - began:.0f} s: expert {expert:.3f}; long: {told}.", flush=True)
            for way, each in found.items():
                if (c := each.curated) is not None and c.cut is not None:
                    losses = ", ".join(f"{trial.loss:.3f}" for trial in c.trials)
                    print(
                        f"  {' '.join(way)}: kept {c.kept} of {c.documents}, without the lowest {c.cut.low:.0%} and "
                        f"the highest {c.cut.high:.0%} (development losses of the cuts: {losses})",
                        flush=True,
                    )
    holds = tell(np.array(experts), lives, time.monotonic() - began)
    return 0 if holds is not False else 1


def tell(experts: Scores, lives: Sequence[Mapping[Way, Tried]], seconds: float) -> bool | None:
    """Say which part is the filter's and which the restart's, and report."""
    rows: list[dict[str, Figure]] = []
    details: dict[str, Figure] = {}
    gains = {}
    for length, epochs in LENGTHS.items():
        score = {arm: np.array([found[length, *arm].accuracy for found in lives]) for arm in ARMS}
        for (start, data), values in score.items():
            mean = over_seeds(values)
            loss = float(np.mean([found[length, start, data].loss for found in lives]))
            rows.append(
                {
                    "epochs": epochs,
                    "start": start,
                    "data": data,
                    "accuracy": mean.mean,
                    "low": mean.low,
                    "high": mean.high,
                    "loss": round(loss, 3),
                }
            )
        parts = {
            "band_minus_all_base": over_seeds(score["base", "band"] - score["base", "all"]),
            "band_minus_all_continue": over_seeds(score["continue", "band"] - score["continue", "all"]),
            "restart_on_all": over_seeds(score["base", "all"] - score["continue", "all"]),
            "restart_on_band": over_seeds(score["base", "band"] - score["continue", "band"]),
        }
        for name, part in parts.items():
            details |= {
                f"{length}_{name}": part.mean,
                f"{length}_{name}_low": part.low,
                f"{length}_{name}_high": part.high,
            }
        gains[length] = min(parts["band_minus_all_base"].mean, parts["band_minus_all_continue"].mean)
        print(
            f"{epochs} epochs. The filter's part (band minus all): from base {words(parts['band_minus_all_base'])}, "
            f"continuing {words(parts['band_minus_all_continue'])}. The restart's part (base minus continuing): on all "
            f"{words(parts['restart_on_all'])}, on the band {words(parts['restart_on_band'])}.",
            flush=True,
        )
    details |= {"expert": over_seeds(experts).mean, "noise": NOISE, "seconds": round(seconds)}
    return report("curate", gains["long"], details, rows, seeds=list(SEEDS), keep=SEED == 1)


if __name__ == "__main__":
    logging.getLogger("rewarm").setLevel(logging.ERROR)
    sys.exit(main())
