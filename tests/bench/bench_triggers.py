"""What a trigger is worth: five of them over the same dated text, really trained; and what a simulation says of them.

Two series of a folder of corpora (DATA=), nine arrivals of economic reports and eight of technical proposals, come at
virtual instants that follow their dates: ten virtual days for a year. Each policy has them through the real core and
the real stages, in this process, on a virtual clock; an hour of it passes for each second of the processor that a
stage takes. Every candidate goes live (the gate is as wide as it can be), so that the triggers alone differ. When an
arrival comes, the champion in force is measured on held-out text of it: the mean over all arrivals, by their size, is
the loss on what came next, and what it is above that of the other policies is what staleness costs.

Then the same history is simulated: with costs learned from the policy's own journal, as `rewarm simulate --history
journal` does, and with those of the other policies' journals together, as who asks what another policy would do. Told
is how far runs and looks, compute and the mean time that data waited are off; chance is left out of the simulation.
The runs of some policies follow from the arrivals and the clock alone. Those of `cost` follow from what runs cost too,
and those of `drift` and `composite` from shifts, which depend on the champion: the simulation takes what probes of the
very arrivals measured, be it under another champion.

Identical work under two policies is done once, and what is finished is kept below var/: started again, the bench goes
on where it stood. The two series have nothing in common, so each is trained by a process of its own, with one thread:
so small a model gains nothing by a second, and seconds of the processor stay comparable. SIZE=smoke is a small one, of
which nothing is reported; FRESH=1 begins anew.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from daemon.config import load
from daemon.core.plans import ModelSettings, Sizes
from daemon.simulation.report import PolicySet, Report
from tests.bench.targets import ROOT, Figure, report
from tests.bench.triggers_course import SCALE, Course, average, really, simulated, taught, tells, untouched
from tests.bench.triggers_stages import SEED, StageBroke, Workshop, measuring
from tests.bench.triggers_text import SERIES, Size, Text, arrivals

SIZES = {
    "full": Size(first=700_000, share=1 / 22, measured=64_000),
    "smoke": Size(first=60_000, share=1 / 200, measured=16_000, arrivals=4),
}
SHAPES = {
    "full": Sizes(width=96, layers=3, heads=3, key_value_heads=3, hidden=320, tied=True),
    "smoke": Sizes(width=32, layers=2, heads=2, key_value_heads=2, hidden=96, tied=True),
}
CONTEXT = 128
TRAINING = {
    "batch": 8,
    "context": CONTEXT,
    "peak": 4e-3,
    "floor": 4e-4,
    "warmup": 0.05,
    "falling_peak": True,
    "epochs": 2.0,
    "max_tokens": 1_000_000,
}
SHIFT = 0.05
"""Nats per byte above the past from which new text is worth a training."""
REGRET = 0.05
"""Hours of the processor that a million tokens' wait of an hour is worth: by simulation as many runs as `amount`."""
LIMITS = {"time_limit": 30 * 86_400.0}
"""Virtual seconds: an attempt here takes longer than the day that is usual, and nothing stops a real one."""
FOLLOWING = ("amount", "time")
"""Whose runs follow from what arrives and when: a simulation knows all of that."""


def policies(unit: int) -> dict[str, dict[str, Any]]:
    """Return the policies by name, as a configuration has them; `unit` is the size of a usual arrival."""
    return {
        "amount": {"when": {"tokens": round(1.5 * unit)}},
        "time": {"when": {"age": "P45D"}},
        "drift": {"when": {"signal": "shift", "above": SHIFT}, "look": {"arrivals": 1}},
        "cost": {"when": {"regret": REGRET}},
        "composite": {
            "when": {
                "any": [
                    {"all": [{"tokens": unit}, {"signal": "shift", "above": SHIFT}]},
                    {"age": "P90D"},
                ]
            },
            "look": {"arrivals": 1},
        },
    }


def configuration(name: str, size: str, policy: Mapping[str, Any], series: Sequence[str] = SERIES) -> dict[str, Any]:
    """Return the whole configuration of a policy; only `policy` is its own."""
    shape = {key: value for key, value in msgspec.structs.asdict(SHAPES[size]).items() if value is not None}
    shared = {
        "kind": "rewarm_replay",
        "name": name,
        "planner": "off",
        "replay": 0.1,
        "training": TRAINING,
        "limits": LIMITS,
    }
    pipeline = {
        "model": {"kind": "llama", "preset": "nano", **shape},
        "data": {"held_out": 0.2},
        "stages": ["ingest", "probe", "train", "evaluate", "promote"],
        "policies": [
            {**shared, **policy},
            {"kind": "promotion", "max_forgetting": 100.0, "min_gain": -100.0, "approval": "auto"},
        ],
    }
    return {"executor": {"slots": len(SERIES)}, "pipelines": dict.fromkeys(series, pipeline)}


def policy_set(
    name: str, size: str, policy: Mapping[str, Any], folder: Path, series: Sequence[str] = SERIES
) -> PolicySet:
    """Return a policy as `rewarm simulate` would have it, from a file that says just this."""
    path = folder / f"{'-'.join([name, *series])}.yaml"
    path.write_text(yaml.safe_dump(configuration(name, size, policy, series), sort_keys=False), encoding="utf-8")
    found = load(path)
    each = {pipeline: settings.policies for pipeline, settings in found.settings.pipelines.items()}
    return PolicySet(name=name, changed=found.changed(), policies=each)


def train_apart(series: Sequence[str]) -> bool:
    """Have each series trained by a process of its own, which keeps what it does; return whether all did well."""
    command = [sys.executable, str(Path(__file__).resolve())]
    started = [subprocess.Popen(command, env={**os.environ, "SERIES": name}) for name in series]
    try:
        codes = [each.wait() for each in started]
        return not any(codes)
    finally:
        for each in started:
            each.kill()


def courses(workshop: Workshop, texts: Mapping[str, Sequence[Text]], sets: Sequence[PolicySet]) -> dict[str, Course]:
    """Let every policy have the history; after each, say what came out and about when the rest will."""
    where = f"{next(iter(texts))}, " if len(texts) == 1 else ""
    found: dict[str, Course] = {}
    began = time.monotonic()
    for number, each in enumerate(sets, 1):
        found[each.name] = really(workshop, texts, each, tells(each.name) if where else _silent)
        passed = time.monotonic() - began
        end = time.strftime("%H:%M", time.localtime(time.time() + passed / number * (len(sets) - number)))
        done = f"; all of them are done at about {end}" if number < len(sets) else ""
        print(f"{where}{each.name}: {found[each.name].loss():.4f} nats per byte on what came next{done}", flush=True)
    return found


def _silent(word: str) -> None:
    del word


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What of a report is compared: runs that trained, looks that did not, seconds of the processor, days of waiting.

    `waited` is how long a token waited in the mean until it was in a champion, or until the end.
    """

    runs: int
    looks: int
    tokens: int
    seconds: float
    waited: float


def totals(told: Report) -> Totals:
    """Return the totals over all pipelines."""
    each = list(told.pipelines.values())
    ends = [(outcome, number) for one in each for runs in one.runs for outcome, number in runs.outcomes.items()]
    looks = sum(number for outcome, number in ends if outcome == "postponed")
    return Totals(
        runs=sum(number for _, number in ends) - looks,
        looks=looks,
        tokens=sum(one.trained_tokens for one in each),
        seconds=sum(one.compute_hours for one in each) * 3600 / SCALE,
        waited=average([(one.staleness.mean or 0.0, one.staleness.weight) for one in each]) / 86_400,
    )


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A policy's real totals and what a simulation said of them, with costs from its own journal or the others'."""

    real: Totals
    own: Totals
    others: Totals


def off(real: float, said: float) -> float:
    """Return how far a simulated figure is off, as a share of the real one."""
    return abs(said - real) / real if real else abs(said)


def claims(compared: Mapping[str, Comparison]) -> dict[str, Figure]:
    """Return the worst errors over all policies, and of those whose runs follow from arrivals and clock alone."""

    def worst(names: Sequence[str], source: str) -> tuple[int, float, float]:
        pairs = [(compared[name].real, getattr(compared[name], source)) for name in names]
        return (
            sum(abs(said.runs - real.runs) + abs(said.looks - real.looks) for real, said in pairs),
            round(max(off(real.seconds, said.seconds) for real, said in pairs), 4),
            round(max(off(real.waited, said.waited) for real, said in pairs), 4),
        )

    found: dict[str, Figure] = {}
    following = [name for name in compared if name in FOLLOWING]
    for word, names, source in (
        ("", list(compared), "own"),
        ("others_", list(compared), "others"),
        ("others_following_", following, "others"),
    ):
        runs, compute, waited = worst(names, source)
        found |= {f"{word}runs_off": runs, f"{word}compute_off": compute, f"{word}staleness_off": waited}
    return found


def row(name: str, course: Course, compared: Comparison) -> dict[str, Figure]:
    """Return a policy's line of the table."""
    real, own, others = compared.real, compared.own, compared.others
    return {
        "policy": name,
        "loss_next": round(course.loss(), 4),
        **{series.removeprefix("dated_"): round(course.loss(series), 4) for series in SERIES},
        "runs": real.runs,
        "looks": real.looks,
        "tokens": real.tokens,
        "seconds": round(real.seconds, 1),
        "waited_days": round(real.waited, 2),
        "runs_simulated": own.runs,
        "looks_simulated": own.looks,
        "compute_off": round(off(real.seconds, own.seconds), 4),
        "staleness_off": round(off(real.waited, own.waited), 4),
        "others_runs": others.runs,
        "others_looks": others.looks,
        "others_compute_off": round(off(real.seconds, others.seconds), 4),
        "others_staleness_off": round(off(real.waited, others.waited), 4),
    }


def compare(
    texts: Mapping[str, Sequence[Text]], sets: Sequence[PolicySet], found: Mapping[str, Course]
) -> dict[str, Comparison]:
    """Simulate every policy with costs of its own journal, and with those of the others'."""
    compared = {}
    for each in sets:
        others = [course for name, course in found.items() if name != each.name]
        compared[each.name] = Comparison(
            real=totals(found[each.name].report),
            own=totals(simulated(texts, each, taught([found[each.name]]))),
            others=totals(simulated(texts, each, taught(others))),
        )
    return compared


def readings(
    found: Mapping[str, Course], never: Mapping[tuple[str, int], float], texts: Mapping[str, Sequence[Text]]
) -> list[dict[str, Figure]]:
    """Return what the champions lost on what came next, arrival by arrival: what the picture is made of."""
    names = {(text.series, text.number): text.name for series in texts.values() for text in series}
    told: list[dict[str, Figure]] = [
        {"policy": "never", "series": series, "arrival": names[series, number], "loss": round(loss, 4)}
        for (series, number), loss in never.items()
    ]
    return told + [
        {
            "policy": policy,
            "series": each.series,
            "arrival": names[each.series, each.number],
            "loss": round(each.loss, 4),
        }
        for policy, course in found.items()
        for each in course.readings
    ]


def keep(told: Sequence[Mapping[str, Figure]]) -> None:
    """Put the readings beside the kept result."""
    path = ROOT / "docs" / "benchmarks" / "triggers.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**result, "readings": told}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> int:
    """Train, simulate and compare; returns 1 unless what is claimed holds, 2 for wrong settings."""
    data, size = os.environ.get("DATA"), os.environ.get("SIZE") or "full"
    if not data:
        print("There is nothing to train on: DATA= names a folder of dated text.")
        print(json.dumps({"bench": "triggers", "value": None, "target": None, "holds": None}))
        return 0
    if size not in SIZES:
        print(f"SIZE={size} is not known; known sizes: {', '.join(SIZES)}.", file=sys.stderr)
        return 2
    state = ROOT / "var" / f"bench-triggers-{size}"
    alone = os.environ.get("SERIES")
    if os.environ.get("FRESH") and not alone:
        shutil.rmtree(state, ignore_errors=True)
    (state / "policies").mkdir(parents=True, exist_ok=True)
    try:
        texts = arrivals(Path(data), state / "inbox", SIZES[size])
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    plan = measuring(ModelSettings(sizes=SHAPES[size]), CONTEXT)
    workshop = Workshop(state, state / "inbox", plan)
    usual = [text.tokens for series in texts.values() for text in series if text.number > 1]
    named = policies(round(sum(usual) / len(usual)))
    if alone:
        texts = {alone: texts[alone]}
    elif not train_apart(list(texts)):
        return 1
    sets = [policy_set(name, size, policy, state / "policies", list(texts)) for name, policy in named.items()]
    try:
        found = courses(workshop, texts, sets)
        never = untouched(workshop, texts, found[sets[0].name])
    except StageBroke as error:
        print(error, file=sys.stderr)
        return 1
    if alone:
        return 0
    compared = compare(texts, sets, found)
    weights = {(text.series, text.number): text.tokens for series in texts.values() for text in series}
    found_off = claims(compared)
    value = found_off.pop("compute_off")
    assert isinstance(value, float)
    details: dict[str, Figure] = {
        **found_off,
        "never_loss_next": round(average([(loss, weights[each]) for each, loss in never.items()]), 4),
        "arrivals": sum(len(series) for series in texts.values()),
        "size": size,
    }
    rows = [row(name, found[name], compared[name]) for name in found]
    held = report("triggers", value, details, rows, seeds=[SEED], keep=size == "full")
    if size == "full":
        keep(readings(found, never, texts))
    return 0 if held or size != "full" else 1


if __name__ == "__main__":
    sys.exit(main())
