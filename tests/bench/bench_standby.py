"""A leader that is stopped, killed or drained, and its standby: how long until the standby's first record.

Facts come all the time, the two daemons change places with every round, and in the end everything is counted.
ROUNDS= (of each way) and LEASE= (seconds) can be given, SEED= too; DATA= names the folder to work in.
"""

import math
import os
import random
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from daemon.journal.lock import lock_path, standby_path
from daemon.journal.sqlite import open_reader
from tests.bench import processes
from tests.bench.crash_daemons import Daemon, Nursery
from tests.bench.crash_world import World, same_hashes
from tests.bench.targets import ROOT, Figures, report

FULL = 25
LEASE = 1.0
LOOK = 0.002
WAYS = {"stopped": signal.SIGSTOP, "killed": signal.SIGKILL, "drained": signal.SIGTERM}


def main() -> int:
    """End leaders by each way in turn, count, report."""
    rounds, seed = int(os.environ.get("ROUNDS") or FULL), int(os.environ.get("SEED") or 1)
    lease = float(os.environ.get("LEASE") or LEASE)
    folder = Path(os.environ.get("DATA") or ROOT / "var") / f"bench-standby-{rounds}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the daemons end with the bench
    world = World(folder, more=f"standby: {{enabled: true, lease: {lease}}}\n")
    world.warm_up()
    took: dict[str, list[float]] = {way: [] for way in WAYS}
    try:
        with Nursery() as first, Nursery() as second:
            pair = Pair(world, (first, second), random.Random(seed))
            try:
                for number in range(rounds * len(WAYS)):
                    way = list(WAYS)[number % len(WAYS)]
                    took[way].append(pair.replace(way))
                pair.end()
            finally:
                pair.kill()
            rest = world.drain(first)
    finally:
        world.retire()
    counted = world.count()
    wrong = counted.wrong + same_hashes(world.journal) + ([] if rest else ["The daemon does not come to rest."])
    stopped = took["stopped"]
    details = {
        "lease_seconds": lease,
        "rounds": rounds,
        "p90": round(quantile(stopped, 0.9) / lease, 3),
        "most": round(max(stopped) / lease, 3),
        "p50_seconds_killed": round(statistics.median(took["killed"]), 3),
        "p50_seconds_drained": round(statistics.median(took["drained"]), 3),
        "lost": len(counted.lost),
        "repeated": len(counted.repeated),
        "wrong": len(wrong),
        "facts": counted.facts,
        "stages_succeeded": counted.succeeded,
    }
    for line in [*counted.lost, *counted.repeated, *wrong][:50]:
        print(line)
    value = round(statistics.median(stopped) / lease, 3)
    if report(
        "standby", value, details, [row(way, took[way], lease) for way in WAYS], seeds=[seed], keep=rounds >= FULL
    ):
        shutil.rmtree(folder)
        return 0
    print(f"What happened lies in {folder}.", file=sys.stderr)
    return 1


class Pair:
    """A leader and its standby, each of a nursery of its own; they change places."""

    def __init__(self, world: World, nurseries: tuple[Nursery, Nursery], rng: random.Random) -> None:
        self._world = world
        self._nurseries = nurseries
        self._rng = rng
        self._rounds = 0
        self._leader = self._bear()
        processes.wait(lambda: self._leader.holds(lock_path(world.journal)), "a leader")
        self._rounds = 1
        self._standby = self._bear()

    def replace(self, way: str) -> float:
        """End the leader at some moment; return the seconds until the standby's first record is in the journal."""
        processes.wait(lambda: self._standby.holds(standby_path(self._world.journal)), "a standby", look=0.02)
        with open_reader(self._world.journal) as reader:
            processes.wait(lambda: len(reader.records(0, kinds=["daemon.started"])) == self._rounds, "its leader")
            self._deliver(time.monotonic() + self._rng.uniform(0.1, 0.6))
            after = reader.head()
            began = time.monotonic()
            os.kill(self._leader.pid, WAYS[way])
            self._deliver(time.monotonic())
            processes.wait(lambda: reader.records(after, kinds=["daemon.started"]), "the successor", look=LOOK)
            took = time.monotonic() - began
        status = self._leader.wait()
        if status != (0 if way == "drained" else -signal.SIGKILL):
            message = f"A leader that was {way} ended with {status}: see {self._world.log}."
            raise RuntimeError(message)
        self._rounds += 1
        self._leader, self._standby = self._standby, self._bear()
        return took

    def end(self) -> None:
        """Let both drain, the standby first."""
        for daemon in (self._standby, self._leader):
            daemon.stop()
            daemon.wait()

    def kill(self) -> None:
        """End both at once, if they have not ended."""
        for daemon in (self._standby, self._leader):
            daemon.kill()

    def _bear(self) -> Daemon:
        """Start a daemon from the nursery whose last one has ended."""
        return Daemon(self._nurseries[self._rounds % 2], self._world.life())

    def _deliver(self, until: float) -> None:
        """Send facts until an instant, at least once."""
        while True:
            self._world.deliver(self._rng)
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, self._rng.uniform(0.05, 0.2)))


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that so large a share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def row(way: str, values: Sequence[float], lease: float) -> Figures:
    """Return the distribution of one way, in seconds and in leases."""
    figures = {
        "least": min(values),
        "p50": statistics.median(values),
        "p90": quantile(values, 0.9),
        "most": max(values),
    }
    return {
        "leader": way,
        "rounds": len(values),
        **{f"{name}_seconds": round(value, 3) for name, value in figures.items()},
        **{f"{name}_leases": round(value / lease, 3) for name, value in figures.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
