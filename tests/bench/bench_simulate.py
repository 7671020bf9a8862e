"""How many facts a second a simulation handles on one core: the example's four policies, the `busy` history.

A fact is one record that comes from outside or from a stage, a timer or a schedule: it is made, folded, shown to
all policies, and what follows is arbitrated, recorded and folded as well. Decisions and what they bring are not
counted as facts, only done. Everything is timed: drawing the history, the cost model, the account for the report.
Time is that of the processor (one thread; nothing waits); wall time is reported beside it. DAYS= and ROUNDS= give
another length and another number of rounds (with fewer of either nothing is kept); SEED= another history.
"""

import gc
import os
import statistics
import sys
import time
from pathlib import Path

import msgspec

from daemon.config import load
from daemon.simulation.costs import DEFAULTS
from daemon.simulation.histories import synthetic
from daemon.simulation.report import PolicySet, Simulated, simulate
from tests.bench.targets import ROOT, Figure, report

DAYS = 10.0
ROUNDS = 7
LOOPS = 2_000_000


def calibrate() -> float:
    """Return the seconds that a fixed loop takes: by it a noisy machine is told from a slow program."""
    begin = time.process_time()
    total = 0
    for number in range(LOOPS):
        total += number * number % 7
    assert total > 0
    return time.process_time() - begin


def once(policies: PolicySet, seed: int, days: float) -> tuple[Simulated, float, float]:
    """Simulate from the start; return what came of it, and the seconds of processor and wall that it took."""
    history = synthetic("busy", sorted(policies.changed.pipelines), seed=seed, days=days)
    gc.collect()
    wall, begin = time.perf_counter(), time.process_time()
    done = simulate(policies, history, DEFAULTS, seed=seed)
    return done, time.process_time() - begin, time.perf_counter() - wall


def main() -> int:
    """Run it again and again; every run has to come to the same bytes."""
    seed = int(os.environ.get("SEED") or 1)
    days = float(os.environ.get("DAYS") or DAYS)
    rounds = max(5, int(os.environ.get("ROUNDS") or ROUNDS))
    configuration = load(Path(ROOT / "rewarm.yaml"))
    policies = PolicySet(
        name="example",
        changed=configuration.changed(),
        policies={name: pipeline.policies for name, pipeline in configuration.settings.pipelines.items()},
    )
    done, *_ = once(policies, seed, days)  # the first round warms up, and is what the others are compared with
    facts = sum(done.report.facts.values())
    acting = sum(each.acting for each in done.report.pipelines.values())
    bytes_before = msgspec.json.encode(done.report)
    rates, walls, loops, same = [], [], [], True
    for _ in range(rounds):
        loops.append(calibrate())
        again, processor, wall = once(policies, seed, days)
        same = same and msgspec.json.encode(again.report) == bytes_before
        rates.append(facts / processor)
        walls.append(facts / wall)
    low, _, high = statistics.quantiles(sorted(rates), n=4, method="inclusive")
    rows: list[dict[str, Figure]] = [
        {"fact": kind, "count": number, "percent": round(100 * number / facts, 2)}
        for kind, number in done.report.facts.items()
    ]
    held = report(
        "simulate",
        round(statistics.median(rates)),
        {
            "quarter": round(low),
            "three_quarters": round(high),
            "least": round(min(rates)),
            "most": round(max(rates)),
            "by_wall": round(statistics.median(walls)),
            "rounds": rounds,
            "days": days,
            "facts": facts,
            "records": done.report.records,
            "acting_per_1000": round(1000 * acting / facts, 3),
            "same_bytes": int(same),
            "state": done.report.state,
            "loop_milliseconds": round(1000 * statistics.median(loops), 1),
        },
        rows,
        seeds=[seed],
        keep=days >= DAYS and rounds >= ROUNDS,
    )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
