"""A pipeline's life in small, run by the real stages: what the bench of the planner predicts.

Finished runs are kept, and so is every finished stage: what was ended goes on where it stood.
"""

import gzip
import json
import os
import random
import sysconfig
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

import stages.training  # noqa: F401 - before torch: it says how torch's threads wait
from daemon.cli.demo import corpus
from daemon.core.events import AnyEvent, DataIngested, ModelEvaluated, ModelPromoted, ProbeMeasured, StageFailed
from daemon.core.plans import Amounts, Checkpoint, DataSettings, Limits, ModelSettings, Plan, Start, add, budget, tokens
from daemon.core.state import lowest
from policies.base import TrainingSettings
from stages.execute import execute
from stages.run_folder import Arrival, Champion, PastRun, Shard, Specification, place_specification
from tests.attempts import shards_of, told, write_arrival

MODEL = ModelSettings(preset="micro")
SETTINGS = TrainingSettings(batch=16, context=128, peak=6e-3, floor=6e-4)
SHARES = (0.01, 0.05, 0.25)
PIECE_BYTES = 1024
LONGEST = 65_536
DATA = DataSettings(held_out=0.2)
"""Short documents, a fifth of them held out: also a small arrival is measured on two dozen."""
BASE_BYTES = 500_000
BASE_EPOCHS = 4.0
LEAST = 3
"""Runs that a law in time order is fitted to at the least."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """An increment of the life: which domain's text comes, how many bytes of it, and how it is trained on."""

    domain: int
    size: int
    epochs: float
    peak: float
    share: float


LIFE = tuple(
    Step(domain=domain, size=size * 1000, epochs=epochs, peak=peak, share=share)
    for domain, size, epochs, peak, share in (
        (1, 120, 2.0, 1.0, 0.05),
        (2, 100, 2.0, 0.7, 0.25),
        (0, 80, 3.0, 1.0, 0.05),
        (1, 160, 1.0, 0.5, 0.01),
        (2, 120, 2.0, 1.4, 0.25),
        (0, 80, 3.0, 0.7, 0.05),
        (1, 100, 2.0, 1.0, 0.25),
        (2, 140, 1.0, 1.0, 0.01),
        (1, 80, 3.0, 0.5, 0.05),
        (0, 80, 2.0, 1.4, 0.25),
        (2, 160, 2.0, 0.7, 0.05),
        (1, 120, 2.0, 1.4, 0.01),
        (0, 80, 3.0, 0.5, 0.25),
        (2, 100, 3.0, 1.0, 0.05),
    )
)


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """A finished run: its place in the life, whether it was promoted, and what the planner would learn of it."""

    increment: int
    share: float
    promoted: bool
    past: PastRun
    seconds: float


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What the next increment builds on."""

    champion: Champion | None = None
    past: tuple[Shard, ...] = ()
    amounts: Amounts = {}
    best: dict[str, float] = {}


class Life:
    """Runs the stages in a state folder; what is finished is found again by its name."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.state = folder / "state"
        self.kept = folder / "kept"
        self.inbox = folder / "inbox"
        for each in (self.state, self.kept, self.inbox):
            each.mkdir(parents=True, exist_ok=True)
        self.seed = seed

    def stage(self, run: str, stage: str, **fields: object) -> tuple[Path, list[AnyEvent]]:
        """Carry out one stage in this process, or find it done; raises RuntimeError when it fails."""
        folder = self.state / "runs" / run / stage / "1"
        given = {"threads": 1, "roots": (str(self.inbox),), "model_version": 1, **fields}
        specification = Specification(
            pipeline="bench",
            run=run,
            stage=stage,
            attempt=1,
            command=f"1/bench/{run}/0",
            implementation=stage,
            state=str(self.state),
            **given,  # type: ignore[arg-type]
        )
        place_specification(folder, specification)
        execute(folder)
        events = told(folder)
        failed = next((event for event in events if isinstance(event, StageFailed)), None)
        if failed is not None:
            raise RuntimeError(f"{run}, {stage}: {failed.message}")
        return folder, events

    def ingest(self, run: str, arrival: Arrival, standing: Standing, plan: Plan) -> tuple[tuple[Shard, ...], Amounts]:
        """Return the shards of an arrival, and what they hold."""
        _, events = self.stage(run, "ingest", plan=plan, arrivals=(arrival,), past=standing.past)
        amounts: Amounts = {}
        for event in events:
            if isinstance(event, DataIngested):
                amounts = add(amounts, {event.domain: event.amount})
        return shards_of(events), amounts

    def train(self, run: str, plan: Plan, new: tuple[Shard, ...], standing: Standing) -> list[AnyEvent]:
        """Probe, train and evaluate; return what the stages told."""
        given = {"plan": plan, "new": new, "past": standing.past, "champion": standing.champion}
        _, probed = self.stage(run, "probe", **given)
        trained, _ = self.stage(run, "train", **given)
        _, evaluated = self.stage(run, "evaluate", **given, done={"train": str(trained)})
        return [*probed, *evaluated]

    def promote(self, run: str, version: int, standing: Standing, new: tuple[Shard, ...], amounts: Amounts) -> Standing:
        """Publish a finished run's candidate; return what the next increment builds on."""
        folders = {stage: str(self.state / "runs" / run / stage / "1") for stage in ("train", "evaluate")}
        plan = _plan(None, TrainingSettings(), 0.0, {}, {}, seed=0, epochs=1.0)
        _, events = self.stage(
            run, "promote", plan=plan, champion=standing.champion, done=folders, model_version=version
        )
        (promoted,) = [event for event in events if isinstance(event, ModelPromoted)]
        model = Checkpoint(path=promoted.path, sha256=promoted.sha256)
        return Standing(
            champion=Champion(version=version, model=model, trunk=promoted.trunk),
            past=(*standing.past, *new),
            amounts=add(standing.amounts, amounts),
            best=lowest(standing.best, promoted.losses),
        )

    def arrival(self, name: str, domain: str, texts: Sequence[str], position: int) -> Arrival:
        """Write an arrival's file, the same bytes every time."""
        return write_arrival(self.inbox / f"{name}.jsonl", texts, domain, position)


def _plan(
    champion: Champion | None,
    settings: TrainingSettings,
    share: float,
    new: Amounts,
    past: Amounts,
    *,
    seed: int,
    epochs: float,
) -> Plan:
    """Return the plan that a policy with these settings would fix."""
    first = champion is None
    training = settings.training(settings.schedule("rewarm", first=first), share)
    start = Start(kind="scratch")
    if champion is not None:
        start = Start(kind="champion", version=champion.version, checkpoint=champion.trunk)
    return Plan(
        kind="base" if first else "increment",
        start=start,
        parent=None if champion is None else champion.version,
        spans=(),
        new=new,
        past=past,
        model=MODEL,
        stages=("ingest", "probe", "train", "evaluate", "promote"),
        training=replace(training, tokens=budget(tokens(new), share, epochs, None), seed=seed),
        limits=Limits(),
        data=DATA,
    )


def live(life: Life, domains: Sequence[tuple[str, list[str]]]) -> Iterator[Tried]:
    """Yield every run of the life, and say when the last one will be done."""
    feeds = [iter(texts) for _, texts in domains]
    names = [name for name, _ in domains]
    whole = BASE_BYTES * BASE_EPOCHS + sum(
        step.size * step.epochs / (1 - share)
        for number, step in enumerate(LIFE, start=1)
        for share in SHARES
        if number > LEAST or share == step.share
    )
    done, began = 0.0, time.monotonic()

    def take(name: str, domain: int, size: int, position: int) -> Arrival:
        texts, taken = [], 0
        while taken < size:
            texts.append(next(feeds[domain]))
            taken += len(texts[-1].encode())
        return life.arrival(name, names[domain], texts, position)

    def tell(what: str, trained: float) -> None:
        nonlocal done
        done += trained
        left = (time.monotonic() - began) * (whole - done) / done
        ends = time.strftime("%H:%M:%S", time.localtime(time.time() + left))
        print(f"{what}; the last run ends about {ends}", flush=True)

    standing = Standing()
    arrival = take("base", 0, BASE_BYTES, 1)
    draft = _plan(None, SETTINGS, 0.0, {}, {}, seed=life.seed, epochs=1.0)
    new, amounts = life.ingest("base", arrival, standing, draft)
    plan = _plan(None, SETTINGS, 0.0, amounts, {}, seed=life.seed, epochs=BASE_EPOCHS)
    life.train("base", plan, new, standing)
    standing = life.promote("base", 1, standing, new, amounts)
    tell("base trained", BASE_BYTES * BASE_EPOCHS)
    for number, step in enumerate(LIFE, start=1):
        arrival = take(f"arrival-{number}", step.domain, step.size, number + 1)
        new, amounts = life.ingest(f"ingest-{number}", arrival, standing, draft)
        settings = SETTINGS.model_copy(update={"peak": SETTINGS.peak * step.peak})
        for place, share in enumerate(SHARES):
            if number <= LEAST and share != step.share:
                continue  # the order of the shares is not judged yet
            run = f"run-{number}-{place}"
            seed = life.seed * 1000 + number * 10 + place
            plan = _plan(standing.champion, settings, share, amounts, standing.amounts, seed=seed, epochs=step.epochs)
            kept = life.kept / f"{run}.json"
            if not kept.exists():
                start = time.monotonic()
                events = life.train(run, plan, new, standing)
                (probe,) = [event for event in events if isinstance(event, ProbeMeasured)]
                (judged,) = [event for event in events if isinstance(event, ModelEvaluated)]
                past = PastRun(
                    run=run,
                    plan=plan,
                    old=probe.past,
                    new=probe.new,
                    evaluation=judged.domains,
                    best=standing.best,
                )
                seconds = round(time.monotonic() - start, 1)
                finished = Tried(
                    increment=number, share=share, promoted=share == step.share, past=past, seconds=seconds
                )
                aside = kept.with_suffix(".aside")
                aside.write_bytes(msgspec.json.encode(finished))
                aside.replace(kept)
            tell(f"{run}: {share:.0%} of replay", step.size * step.epochs / (1 - share))
            yield msgspec.json.decode(kept.read_bytes(), type=Tried)
        standing = life.promote(f"run-{number}-{SHARES.index(step.share)}", number + 1, standing, new, amounts)


def domain_names() -> list[str]:
    """Return the names of the three domains in DATA=."""
    return [os.environ.get(key) or name for key, name in (("FROM", "en_a"), ("TO", "de"), ("THIRD", "en_b"))]


def kept_domains(path: Path, seed: int) -> list[tuple[str, list[str]]]:
    """Return the domains' texts, made once: to take the library's source apart is half a minute's work."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".aside")
        aside.write_bytes(msgspec.json.encode(domains(seed)))
        aside.replace(path)
    return msgspec.json.decode(path.read_bytes(), type=list[tuple[str, list[str]]])


def domains(seed: int) -> list[tuple[str, list[str]]]:
    """Return three domains' documents, in an order of the seed."""
    folder = os.environ.get("DATA")
    found: list[tuple[str, list[str]]] = []
    if folder:
        for name in domain_names():
            with gzip.open(Path(folder) / f"{name}.train.jsonl.gz", "rt", encoding="utf-8") as file:
                found.append((name, [json.loads(line)["text"] for line in file]))
    else:
        library = Path(sysconfig.get_path("stdlib"))
        for make in (corpus.prose, corpus.code, corpus.tests):
            made = make(library, 1_200_000)
            found.append((made.domain, [document.text for document in made.documents]))
    return [(name, _shuffled(name, texts, seed)) for name, texts in found]


def _shuffled(name: str, texts: Sequence[str], seed: int) -> list[str]:
    """Return the texts in pieces, in an order of the seed: so that arrivals of a domain are alike."""
    data = [text.encode() for text in texts]
    starts = ((each, at) for each in data for at in range(0, min(len(each), LONGEST), PIECE_BYTES))
    pieces = [each[at : at + PIECE_BYTES].decode(errors="ignore") for each, at in starts]
    random.Random(f"{name}/{seed}").shuffle(pieces)
    return [piece for piece in pieces if piece.strip()]
