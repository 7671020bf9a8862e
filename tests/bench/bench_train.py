"""The engine against a plain PyTorch loop of the same decoder, and against Hugging Face's Trainer on its architecture.

All three have every switch that the engine has on: fused AdamW without decay of gains, clipping, the same precision,
threads and deterministic arithmetic; theirs have their batches ready in memory, the engine reads its own from shards
that were ingested. One process takes turns; a pair is one segment of each, and of each segment the first steps do not
count. Memory is measured in a process of its own for each. `DEVICE=cpu|cuda`, `SIZE=nano|small|…`, `PAIRS=9`, and
`SEGMENT=5`, the seconds of a segment.
"""

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import stages.training  # noqa: F401 - before torch: it says how torch's threads wait

# isort: split
import numpy as np
import torch
import torch.nn.functional as F

from daemon.core.events import CheckpointSaved
from daemon.core.plans import Limits, ModelSettings, Plan, Schedule, Start, Training
from stages.base import Context
from stages.execute import execute
from stages.run_folder import Arrival, Outcome, Shard, Specification, lines, place_specification
from stages.train import train
from stages.training.engine.device import precision, prepare
from stages.training.engine.team import Alone
from stages.training.models import adapter_of
from tests.attempts import arrived, shards_of, told
from tests.bench.targets import ROOT, report

if TYPE_CHECKING:
    from torch import Tensor

WARM = 3
"""Steps of a segment that do not count."""
BATCHES = {
    "cpu": {"micro": (16, 256), "nano": (16, 256), "small": (8, 256)},
    "cuda": {"nano": (64, 512), "small": (64, 1024), "medium": (32, 1024), "large": (16, 1024), "xl": (8, 1024)},
}
"""Sequences and their tokens in a batch, by device and size."""
NAMES = ("engine", "plain", "trainer")
DEVICE = os.environ.get("DEVICE", "cpu")
if DEVICE == "cpu":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the engine takes what there is
SIZE = os.environ.get("SIZE", "nano" if DEVICE == "cpu" else "small")
PAIRS = int(os.environ.get("PAIRS", "9"))
SEGMENT = float(os.environ.get("SEGMENT", "5"))
THREADS = int(os.environ.get("THREADS", "0"))
SEED = int(os.environ.get("SEED", "1"))
PEAK = 3e-3
INTERVAL = Limits().checkpoint_every
CHECKPOINTS = 2.0
"""Seconds between checkpoints where their cost is measured."""
RESAMPLES = 10_000

Segment = Callable[[int], float]
"""Trains so many steps after the first ones; returns the seconds that they took."""


class Stopwatch(Context):
    """A context that notes when the steps that count began and ended."""

    began = ended = 0.0

    def beat(self, step: int, steps: int, metrics: dict[str, float] | None = None) -> None:
        """Beat, and look at the clock where it counts."""
        super().beat(step, steps, metrics)
        if step == WARM:
            self.began = now()
        if step == steps:
            self.ended = now()


def now() -> float:
    """Return the time at which the device has done what it was given."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class Bench:
    """A state folder with an ingested corpus, and the contenders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.batch, self.context = BATCHES[DEVICE][SIZE]
        self.shards = self._ingest()
        self.adapter = adapter_of(self._context("model", self._specification("train", "model", 1)))
        self.metrics: dict[str, float] = {}
        generator = torch.Generator().manual_seed(SEED)
        shape = (64, self.batch, self.context + 1)
        self.rows = torch.randint(0, 256, shape, generator=generator).to(DEVICE)
        self._runs = 0

    def _ingest(self) -> tuple[Shard, ...]:
        text = self.folder / "inbox" / "text.txt"
        text.parent.mkdir()
        generator = random.Random(SEED)
        words = ["".join(generator.choices("etaoinshrdlu", k=generator.randint(1, 9))) for _ in range(2000)]
        with text.open("w", encoding="utf-8") as file:
            for _ in range(4000):
                file.write(json.dumps({"text": " ".join(generator.choices(words, k=400))}) + "\n")
        arrival = arrived(text, "text", 4000)
        specification = self._specification("ingest", "ingest", 1, arrivals=(arrival,))
        run = self._run_folder(specification)
        execute(run)
        return shards_of(told(run))

    def _specification(
        self,
        stage: str,
        run: str,
        steps: int,
        *,
        every: float = INTERVAL,
        arrivals: tuple[Arrival, ...] = (),
        new: tuple[Shard, ...] = (),
    ) -> Specification:
        schedule = Schedule(kind="constant", peak=PEAK, floor=PEAK, plateau=PEAK, warmup=0.0)
        training = Training(
            tokens=steps * self.batch * self.context,
            batch=self.batch,
            context=self.context,
            replay=0.0,
            schedule=schedule,
            optimiser="keep",
            seed=SEED,
        )
        plan = Plan(
            kind="base",
            start=Start(kind="scratch"),
            parent=None,
            spans=(),
            new={},
            past={},
            model=ModelSettings(preset=SIZE),
            stages=("ingest", "train"),
            training=training,
            limits=Limits(checkpoint_every=every),
        )
        return Specification(
            pipeline="bench",
            run=run,
            stage=stage,
            attempt=1,
            command=f"1/bench/{run}/0",
            implementation=stage,
            state=str(self.folder / "state"),
            roots=(str(self.folder / "inbox"),),
            plan=plan,
            threads=THREADS,
            arrivals=arrivals,
            new=new,
        )

    def _run_folder(self, specification: Specification) -> Path:
        folder = self.folder / "state" / "runs" / specification.run / specification.stage / "1"
        place_specification(folder, specification)
        return folder

    def _context(self, run: str, specification: Specification) -> Stopwatch:
        folder = self._run_folder(specification)
        return Stopwatch(specification, folder, Outcome(folder), time.monotonic)

    def engine(self, steps: int, *, every: float = INTERVAL) -> float:
        """Train as a stage does, from scratch to the candidate."""
        self._runs += 1
        run = f"engine-{self._runs}"
        context = self._context(run, self._specification("train", run, WARM + steps, every=every, new=self.shards))
        self.metrics = train(context, Alone()).metrics
        signal.setitimer(signal.ITIMER_REAL, 0)
        saved = sum(json.loads(line)["kind"] == CheckpointSaved.kind for line in lines(context.folder))
        self.metrics["checkpoints"] = float(saved)
        shutil.rmtree(context.folder)
        return context.ended - context.began

    def plain(self, steps: int) -> float:
        """Train the decoder as one does by hand."""
        model = self.adapter.make(SEED).to(DEVICE).train()
        groups: list[dict[str, Any]] = [
            {"params": [weight for weight in model.parameters() if weight.ndim > 1], "weight_decay": 0.1},
            {"params": [weight for weight in model.parameters() if weight.ndim == 1], "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.95), fused=True)
        began = 0.0
        for step in range(1, WARM + steps + 1):
            rows = self.rows[step % len(self.rows)]
            optimiser.zero_grad()
            with precision(torch.device(DEVICE)):
                logits: Tensor = model(rows[:, :-1])
                loss = F.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten())
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            if step == WARM:
                began = now()
        return now() - began

    def trainer(self, steps: int) -> float:
        """Train the same architecture with Hugging Face's Trainer."""
        import transformers

        class Watch(transformers.TrainerCallback):
            began = ended = 0.0

            def on_step_end(
                self,
                args: transformers.TrainingArguments,
                state: transformers.TrainerState,
                control: transformers.TrainerControl,
                **_: object,
            ) -> None:
                if state.global_step == WARM:
                    self.began = now()
                if state.global_step == state.max_steps:
                    self.ended = now()

        config = json.loads(self.adapter.files(self.adapter.make(SEED))["config.json"])
        torch.manual_seed(SEED)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config))
        rows = self.rows.flatten(0, 1)[:, :-1].cpu()
        settings = transformers.TrainingArguments(
            output_dir=str(self.folder / "trainer"),
            max_steps=WARM + steps,
            per_device_train_batch_size=self.batch,
            learning_rate=PEAK,
            lr_scheduler_type="constant",
            weight_decay=0.1,
            adam_beta2=0.95,
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            bf16=DEVICE == "cuda",
            use_cpu=DEVICE == "cpu",
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        data = [{"input_ids": row, "labels": row} for row in rows]
        watch = Watch()
        trainer = transformers.Trainer(model=model, args=settings, train_dataset=data, callbacks=[watch])
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
        return watch.ended - watch.began


def main() -> int:
    """Measure, and report the lower end of the interval of the ratio to the faster of the two."""
    prepare(THREADS)
    with tempfile.TemporaryDirectory(prefix="bench-train-", dir=_parent()) as folder:
        bench = Bench(Path(folder))
        segments: dict[str, Segment] = {name: getattr(bench, name) for name in NAMES}
        steps = max(8, round(SEGMENT * 4 / bench.plain(4)))
        for segment in segments.values():
            segment(4)  # imports, and memory that is kept
        tokens = steps * bench.batch * bench.context
        speeds: dict[str, list[float]] = {name: [] for name in NAMES}
        waiting = []
        for pair in range(PAIRS):
            for name in NAMES[pair % 3 :] + NAMES[: pair % 3]:
                speeds[name].append(tokens / segments[name](steps))
            waiting.append(bench.metrics["waiting_share"])
            told = ", ".join(f"{name} {speeds[name][-1]:,.0f}" for name in NAMES)
            print(f"Pair {pair + 1} of {PAIRS}: {told} tokens/s.", flush=True)
        # As many checkpoints as fit, and what one of them holds up the training for, as a share of the interval.
        seconds = bench.engine(4 * steps, every=CHECKPOINTS)
        blocked = bench.metrics["saving_share"] * (seconds * (1 + WARM / (4 * steps))) / bench.metrics["checkpoints"]
        peaks = {name: peak(name) for name in NAMES}
    faster = max(("plain", "trainer"), key=lambda name: float(np.median(speeds[name])))
    ratio, low, high = interval(speeds["engine"], speeds[faster])
    holds = report(
        "train" if DEVICE == "cpu" else f"train_{DEVICE}",
        round(low, 4),
        {
            "ratio": round(ratio, 4),
            "high": round(high, 4),
            "faster": faster,
            "ratio_plain": round(interval(speeds["engine"], speeds["plain"])[0], 4),
            "ratio_trainer": round(interval(speeds["engine"], speeds["trainer"])[0], 4),
            "pairs": PAIRS,
            "waiting_share": round(float(np.median(waiting)), 5),
            "saving_share": round(blocked / INTERVAL, 6),
            "checkpoints": bench.metrics["checkpoints"],
            **{f"peak_mb_{name}": value for name, value in peaks.items()},
            "device": DEVICE,
            "size": SIZE,
            "batch": bench.batch,
            "context": bench.context,
            "threads": torch.get_num_threads(),
        },
        [
            {"contender": name, "tokens_per_second": round(float(np.median(each)), 1), "peak_mb": peaks[name]}
            for name, each in speeds.items()
        ],
        seeds=[SEED],
        keep=PAIRS >= 7,
    )
    return 0 if holds is not False else 1


def interval(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """Return the mean ratio over pairs (geometric), and the ends of its 95 % bootstrap interval."""
    logs = np.log(np.array(ours) / np.array(theirs))
    drawn = np.random.default_rng(SEED).choice(logs, size=(RESAMPLES, len(logs))).mean(axis=1)
    low, high = np.exp(np.percentile(drawn, (2.5, 97.5)))
    return float(np.exp(logs.mean())), float(low), float(high)


def peak(name: str) -> float:
    """Return the megabytes that a contender takes beyond what is there before it, in a process of its own."""
    done = subprocess.run([sys.executable, __file__, name], check=True, capture_output=True, text=True, cwd=ROOT)
    return float(done.stdout.split()[-1])


def measure_peak(name: str) -> None:
    """Train a few steps and print what that took."""
    import transformers  # noqa: F401 - so that its own size counts for none of them

    prepare(THREADS)
    with tempfile.TemporaryDirectory(prefix="bench-train-", dir=_parent()) as folder:
        bench = Bench(Path(folder))
        if DEVICE == "cuda":
            held = torch.cuda.memory_allocated()
            getattr(bench, name)(4)
            print(round((torch.cuda.max_memory_allocated() - held) / 2**20, 1))
            return
        before = _resident()
        Path("/proc/self/clear_refs").write_text("5")  # the highest mark begins anew
        getattr(bench, name)(4)
        print(round(_highest() - before, 1))


def _status(key: str) -> float:
    found = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key)]
    return int(found[0].split()[1]) / 1024


_resident = partial(_status, "VmRSS:")
_highest = partial(_status, "VmHWM:")


def _parent() -> Path:
    parent = ROOT / "var"
    parent.mkdir(parents=True, exist_ok=True)
    return parent


if __name__ == "__main__":
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("rewarm").setLevel(logging.ERROR)
    if len(sys.argv) > 1:
        measure_peak(sys.argv[1])
    else:
        sys.exit(main())
