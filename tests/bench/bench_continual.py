"""Continual pre-training as in Ibrahim et al. 2024 (arXiv 2403.08763), arm against arm, by the engine's own stages.

Two domains, an old one (D0) and a new one (D1), of equally many tokens. D0 only; the paper's recipe (the cosine is
re-warmed and re-decayed, the optimiser begins anew) with 0 and 25 % of every batch replayed; the union of both from
scratch; the trunk (an infinite schedule, whose optimiser goes on, 25 % replayed, annealed into what is measured). The
larger sizes have D1 only and a constant rate at the floor too. Every arm that saw both domains was trained on as many
tokens. D0's peak is swept first, until the best lies inside, and all arms have that. Losses are nats per byte of
held-out documents with 95 % intervals over documents, differences are paired. There is one seed: what holds is said of
these runs on these texts and of no more.

SIZE=quick (about 5 minutes on two cores), cpu (hours) or gpu. DATA= names a folder of NAME.train.jsonl.gz, FROM= and
TO= two of its names (en_a and de); without it the text is the standard library's. Finished arms are kept below var/
and not run again; FRESH=1 begins anew. THREADS= (2) and SEED= (1) can be given.
"""

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec

import stages.training  # noqa: F401 - before torch: it says how torch's threads wait
from daemon.core.plans import ModelSettings, Sizes, Training
from policies.base import TrainingSettings
from tests.bench.continual_account import Account, Arms, Row, account
from tests.bench.continual_arms import Arm, ArmFailed, Readings, World, make_world, readings, train
from tests.bench.continual_text import Domain, folder, standard_library
from tests.bench.targets import ROOT, report

NO_REPLAY, REPLAYED = "recipe, no replay", "recipe, 25 % replay"
TRUNK, UNION = "trunk, 25 % replay", "union, from scratch"
OLD_TRUNK, NEW_ONLY, AT_FLOOR = "D0 only, infinite schedule", "D1 only", "constant at the floor, no replay"
ONE_DOMAIN = (OLD_TRUNK, NEW_ONLY)
REPLAY = 0.25
WARMUP = 0.05
"""Of a few hundred steps; the paper's 1 % of hundred thousands are more steps than the whole of these runs."""
MOST_PEAKS = 6
"""So many peaks are tried at most before the best one is taken though it lies at an end."""
FLOOR = 0.1
"""Share of the peak at which a schedule ends, as in the paper."""


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How much is trained: tokens of a domain, the model, the batch, the peaks to choose from, further arms or not."""

    tokens: int
    model: ModelSettings
    batch: int
    context: int
    peaks: tuple[float, ...]
    further: bool = True
    measured: int = 512 * 1024


TINY = ModelSettings(sizes=Sizes(width=64, layers=2, heads=2, key_value_heads=2, hidden=192))
SIZES = {
    "quick": Size(tokens=1_500_000, model=TINY, batch=16, context=128, peaks=(3e-3, 6e-3, 1.2e-2), further=False),
    "cpu": Size(tokens=8_000_000, model=ModelSettings(preset="nano"), batch=32, context=256, peaks=(2e-3, 4e-3, 8e-3)),
    "gpu": Size(
        tokens=24_000_000, model=ModelSettings(preset="small"), batch=64, context=512, peaks=(1e-3, 2e-3, 4e-3)
    ),
}


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison: its size, the old and the new domain, the tokens of each and the seed."""

    size: Size
    old: str
    new: str
    tokens: int
    seed: int

    def training(self, kind: Literal["rewarm", "infinite", "constant"], peak: float, **changes: object) -> Training:
        """Return a plan's training; a continued infinite schedule neither warms up nor cools down."""
        first = not changes.pop("continues", False)
        settings = TrainingSettings(peak=peak, floor=FLOOR * peak, warmup=WARMUP)
        schedule = settings.schedule(kind, first=first)
        if kind == "constant":
            schedule = msgspec.structs.replace(schedule, peak=FLOOR * peak)
        given = Training(
            tokens=self.tokens,
            batch=self.size.batch,
            context=self.size.context,
            replay=0.0,
            schedule=schedule,
            optimiser="reset",
            seed=self.seed,
        )
        return msgspec.structs.replace(given, **changes)

    def base(self, peak: float) -> Arm:
        """Return D0 only, by a cosine."""
        return Arm(name=f"d0-{peak:g}", data=(self.old,), training=self.training("rewarm", peak))

    def arms(self, peak: float) -> dict[str, Arm]:
        """Return the arms after the sweep by what they are called, those that others continue first."""
        old, new = (self.old,), (self.new,)
        base, trunk = self.base(peak).name, f"d0-trunk-{peak:g}"
        goes_on = self.training("infinite", peak, continues=True, replay=REPLAY, optimiser="keep")
        found = {
            OLD_TRUNK: Arm(name=trunk, data=old, training=self.training("infinite", peak)),
            NO_REPLAY: Arm(
                name=f"recipe-0-{peak:g}",
                data=new,
                past=old,
                of=(base, "candidate"),
                training=self.training("rewarm", peak),
            ),
            REPLAYED: Arm(
                name=f"recipe-25-{peak:g}",
                data=new,
                past=old,
                of=(base, "candidate"),
                training=self.training("rewarm", peak, replay=REPLAY),
            ),
            TRUNK: Arm(name=f"trunk-25-{peak:g}", data=new, past=old, of=(trunk, "trunk"), training=goes_on),
            UNION: Arm(
                name=f"union-{peak:g}", data=old + new, training=self.training("rewarm", peak, tokens=2 * self.tokens)
            ),
        }
        if self.size.further:
            found[NEW_ONLY] = Arm(name=f"d1-{peak:g}", data=new, training=self.training("rewarm", peak))
            floor = self.training("constant", peak)
            found[AT_FLOOR] = Arm(name=f"floor-0-{peak:g}", data=new, past=old, of=(base, "candidate"), training=floor)
        return found


class Progress:
    """Says after every arm what came out, and when the rest will be done."""

    def __init__(self, course: Course, tokens: int) -> None:
        self._course = course
        self._left = tokens
        self._done = 0
        self._seconds = 0.0

    def expect(self, tokens: int) -> None:
        """Count tokens that were not foreseen."""
        self._left += tokens

    def tell(self, arm: Arm, found: Readings, seconds: float | None) -> None:
        """Print an arm's losses; `seconds` None: it was kept from an earlier time."""
        self._left -= arm.training.tokens
        if seconds is not None:
            self._done += arm.training.tokens
            self._seconds += seconds
        losses = ", ".join(f"{domain} {found[domain].mean:.4f}" for domain in (self._course.old, self._course.new))
        took = "kept" if seconds is None else f"{seconds:.0f} s"
        rest = ""
        if self._done and self._left > 0:
            end = datetime.now().astimezone() + timedelta(seconds=self._left * self._seconds / self._done)
            rest = f"; all is done at about {end:%H:%M:%S}"
        print(f"{arm.name}: {losses} nats per byte ({took}){rest}", flush=True)


def best(course: Course, swept: Mapping[float, Readings]) -> float:
    """Return the peak at which D0 alone is learned best."""
    return min(swept, key=lambda each: swept[each][course.old].mean)


def beyond(course: Course, swept: Mapping[float, Readings]) -> float | None:
    """Return a peak that is still to be tried, for the best one lies at an end of the sweep; None after enough."""
    peak = best(course, swept)
    if len(swept) >= MOST_PEAKS or len(swept) == 1 or min(swept) < peak < max(swept):
        return None
    return peak / 2 if peak == min(swept) else peak * 2


def compare(world: World, course: Course) -> Account:
    """Sweep the peak, run every arm that is not kept, and return what came out."""
    sweep = [course.base(peak) for peak in course.size.peaks]
    whole = [*sweep, *course.arms(course.size.peaks[0]).values()]
    progress = Progress(course, sum(arm.training.tokens for arm in whole))

    def run(arm: Arm) -> Readings:
        kept = readings(world, arm)
        began = time.monotonic()
        found = kept or train(world, arm)
        progress.tell(arm, found, None if kept else time.monotonic() - began)
        return found

    swept = {peak: run(arm) for peak, arm in zip(course.size.peaks, sweep, strict=True)}
    while (peak := beyond(course, swept)) is not None:
        progress.expect(course.tokens)
        swept[peak] = run(course.base(peak))
    peak = best(course, swept)
    found = {word: run(arm) for word, arm in course.arms(peak).items()}
    rows = [Row(told=f"D0 only, peak {each:g}", tokens=course.tokens, readings=swept[each]) for each in sorted(swept)]
    rows += [
        Row(told=word, tokens=(1 if word in ONE_DOMAIN else 2) * course.tokens, readings=found[word]) for word in found
    ]
    arms = Arms(
        base=swept[peak],
        trunk_base=found[OLD_TRUNK],
        no_replay=found[NO_REPLAY],
        replay=found[REPLAYED],
        trunk=found[TRUNK],
        union=found[UNION],
    )
    told = account(arms, rows, old=course.old, new=course.new, seed=course.seed)
    return msgspec.structs.replace(told, details={"tokens": course.tokens, "peak": peak, **told.details})


def texts(size: Size, data: str | None) -> tuple[Domain, Domain]:
    """Return the old and the new domain; raises FileNotFoundError and ValueError for what the settings name wrongly."""
    if data is None:
        return standard_library(size.tokens, size.measured)
    names = os.environ.get("FROM") or "en_a", os.environ.get("TO") or "de"
    if names[0] == names[1]:
        raise ValueError(f"FROM and TO are both {names[0]}: there is nothing new to learn.")
    old, new = (folder(Path(data), name, size.tokens, size.measured) for name in names)
    return old, new


def content(course: Course, domains: tuple[Domain, Domain]) -> str:
    """Return a name for what is trained on what: arms that are kept under it are the same ones."""
    whole = [course, domains, course.base(1.0), course.arms(1.0)]
    return hashlib.sha256(msgspec.json.encode(whole)).hexdigest()[:12]


def main() -> int:
    """Run the comparison; returns 1 unless what is claimed of it holds, 2 for wrong settings."""
    name = os.environ.get("SIZE") or "quick"
    if name not in SIZES:
        print(f"SIZE={name} is not known; known sizes: {', '.join(SIZES)}.", file=sys.stderr)
        return 2
    size, data, seed = SIZES[name], os.environ.get("DATA") or None, int(os.environ.get("SEED") or 1)
    threads = int(os.environ.get("THREADS") or 2)
    try:
        domains = texts(size, data)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    course = Course(size=size, old=domains[0].name, new=domains[1].name, tokens=size.tokens, seed=seed)
    state = ROOT / "var" / f"bench-continual-{name}-{course.old}-{course.new}-{content(course, domains)}"
    if os.environ.get("FRESH"):
        shutil.rmtree(state, ignore_errors=True)
    try:
        world = make_world(state, domains, size.model, threads)
        for word, domain in zip(("D0", "D1"), domains, strict=True):
            print(f"{word} is {domain.told}: {world.tokens[domain.name]:,} tokens to train on.", flush=True)
        course = msgspec.structs.replace(course, tokens=min(size.tokens, *world.tokens.values()))
        found = compare(world, course)
    except ArmFailed as error:
        print(error, file=sys.stderr)
        return 1
    bench = "continual" if data is None else "continual_data"
    details = {"size": name, "from": course.old, "to": course.new, **found.details}
    return 0 if report(bench, found.removed, details, found.rows, seeds=[seed]) else 1


if __name__ == "__main__":
    sys.exit(main())
