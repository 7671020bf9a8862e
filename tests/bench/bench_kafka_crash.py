"""Daemons and brokers that are killed while producers write: what was lost, what happened twice?

Three brokers, a topic of several partitions, two producers that repeat a tenth of their facts and write poison of
every sort. A daemon reads it and is killed by SIGKILL: at named write boundaries and at random instants; every few
kills it has a standby, which takes over and is killed too. With every twentieth kill a broker is killed as well, and
comes back. In the end the ledger, the topics, the journal and the stages' notes are compared by other means than
rewarm's, and the topic of dead letters has to hold every poison once. Afterwards the negative control: a journal
whose cursors stand outside the transaction must lose something.

KILLS= and SEED= can be given; DATA= names the folder to work in. The kills are done in parts, each with a journal and
topics of its own; a finished part is kept, so an interrupted bench goes on with the next one when it is started again.
"""

import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
from msgspec.structs import replace

from tests.bench.brokers import need
from tests.bench.crash_daemons import Nursery
from tests.bench.crash_kafka import KafkaFeed
from tests.bench.crash_surgery import Surgeon, kills, take_over
from tests.bench.crash_world import Kill, World, end_leftover, same_hashes
from tests.bench.targets import ROOT, Figure, report
from tests.brokers.broker import Broker
from tests.brokers.cluster import Cluster

FULL = 300
PART = 60
PARTITIONS = 4
POISON = 0.01
BROKER_EVERY = 20
STANDBY_EVERY = 5
TELL_EVERY = 10
CONTROL_KILLS = 30
CONTROL_PATIENCE = 10.0
STANDBY = "standby: {enabled: true, lease: 2}\n"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What a part came to; `reading`: after how many the journal had more records than before."""

    kills: int
    seconds: float = 0.0
    killed_at: dict[str, int]
    reading: int = 0
    takeovers: int = 0
    broker_kills: int = 0
    facts: int = 0
    poison: int = 0
    duplicates: int = 0
    duplicates_expected: int = 0
    stages_succeeded: int = 0
    lost: list[str] = []
    repeated: list[str] = []
    wrong: list[str] = []


def main() -> int:
    """Do the parts that are still to be done, then the control; count and report."""
    wanted, seed = int(os.environ.get("KILLS") or FULL), int(os.environ.get("SEED") or 1)
    folder = Path(os.environ.get("DATA") or ROOT / "var") / f"bench-kafka-crash-{wanted}-{seed}"
    need(given=False)
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that daemons and brokers end with the bench
    sizes = [min(PART, wanted - begun) for begun in range(0, wanted, PART)]
    done = {number: part for number in range(len(sizes)) if (part := read(folder, number)) is not None}
    print(f"Seed {seed}; {sum(part.kills for part in done.values())} of {wanted} kills are done already.", flush=True)
    shutil.rmtree(folder / "brokers", ignore_errors=True)
    with Cluster(folder / "brokers", nodes=3) as cluster:
        for number in range(len(sizes)):
            if number not in done:
                done[number] = play(cluster, folder / f"part-{number}", seed, number, sizes)
                (folder / f"part-{number}.json").write_bytes(msgspec.json.encode(done[number]))
        found, control_kills = control(cluster, folder / "control", seed)
    parts = [done[number] for number in sorted(done)]
    if tell(parts, found, control_kills, seed):
        shutil.rmtree(folder)
        return 0
    print(f"What happened lies in {folder}.", file=sys.stderr)
    return 1


def play(cluster: Cluster, folder: Path, seed: int, number: int, sizes: Sequence[int]) -> Part:
    """Kill the daemons of a part, which share a journal and a topic, and count."""
    began = time.monotonic()
    world, feed = make(cluster, folder)
    killed: Counter[str] = Counter()
    reading = 0
    with ExitStack() as stack:
        stack.callback(world.retire)
        nurseries = stack.enter_context(Nursery()), stack.enter_context(Nursery())
        surgeon = stack.enter_context(Surgeon(cluster))
        world.warm_up()
        plan = kills(f"{seed}/{number}", skip=7 * number)
        while (done := killed.total()) < sizes[number]:
            kill, rng = next(plan)
            taken = feed.taken(world.journal)
            if done >= BROKER_EVERY * surgeon.kills + BROKER_EVERY // 2:
                surgeon.kill(rng)
            if done % STANDBY_EVERY == STANDBY_EVERY - 2 and done + 2 <= sizes[number]:
                take_over(world, nurseries, rng)
                killed.update({"with a standby behind it": 1, "after it took over": 1})
            else:
                world.kill(nurseries[0], kill, rng)
                killed[kill.boundary or "a random instant"] += 1
            reading += feed.taken(world.journal) > taken
            if killed.total() // TELL_EVERY > done // TELL_EVERY:
                each = (time.monotonic() - began) / killed.total()
                end = datetime.now().astimezone() + timedelta(seconds=each * (sum(sizes[number:]) - killed.total()))
                print(
                    f"part {number + 1} of {len(sizes)}: {killed.total()} kills, {each:.1f} s each; "
                    f"the last part ends about {end:%H:%M}.",
                    flush=True,
                )
        surgeon.heal()
        rest = world.drain(nurseries[0])
    part = count(world, feed, killed, rest=rest)
    return replace(part, reading=reading, broker_kills=surgeon.kills, seconds=round(time.monotonic() - began, 1))


def make(broker: Broker, folder: Path, *, poison: float = POISON) -> tuple[World, KafkaFeed]:
    """Return a world whose facts come by new topics; `poison` is the share of what cannot be accepted."""
    end_leftover(folder / "journal.db")
    shutil.rmtree(folder, ignore_errors=True)
    topic = broker.topic(partitions=PARTITIONS, prefix="crash")
    broker.create(f"{topic}.dlq", partitions=PARTITIONS)
    feed = KafkaFeed(folder, address=broker.address, topic=topic, partitions=PARTITIONS, poison=poison)
    return World(folder, feed, more=STANDBY), feed


def count(world: World, feed: KafkaFeed, killed: Counter[str], *, rest: bool) -> Part:
    """Count what a part lost and repeated, in the journal and among the dead letters that were told."""
    counted = world.count()
    lost, repeated = feed.faults()
    wrong = counted.wrong + same_hashes(world.journal) + ([] if rest else ["The daemon does not come to rest."])
    if counted.duplicates != counted.duplicates_expected:
        wrong.append(f"{counted.duplicates} duplicates were counted, not {counted.duplicates_expected}")
    return Part(
        kills=killed.total(),
        killed_at=dict(killed),
        takeovers=killed["after it took over"],
        facts=counted.facts,
        poison=counted.dead_letters,
        duplicates=counted.duplicates,
        duplicates_expected=counted.duplicates_expected,
        stages_succeeded=counted.succeeded,
        lost=counted.lost + lost,
        repeated=counted.repeated + repeated,
        wrong=wrong,
    )


def control(broker: Broker, folder: Path, seed: int) -> tuple[int, int]:
    """Kill daemons with loose cursors until something is lost or repeated; return how much, and after how many."""
    world, _ = make(broker, folder)
    found = number = 0
    with ExitStack() as stack:
        stack.callback(world.retire)
        nursery = stack.enter_context(Nursery())
        world.warm_up()
        while not found and number < CONTROL_KILLS:
            for _ in range(5):
                rng = random.Random(f"control {seed}/{number}")
                boundary = "journal.before_commit" if number % 2 == 0 else None
                kill = Kill(boundary=boundary, count=rng.randint(3, 6), delay=rng.uniform(0, 1.5), loose=True)
                world.kill(nursery, kill, rng)
                number += 1
            world.drain(nursery, patience=CONTROL_PATIENCE, loose=True)
            counted = world.count()
            found = len(counted.lost) + len(counted.repeated)
    return found, number


def tell(parts: Sequence[Part], found: int, control_kills: int, seed: int) -> bool:
    """Report the sums; return whether nothing is amiss."""
    for line in [line for part in parts for line in (*part.lost, *part.repeated, *part.wrong)][:50]:
        print(line)
    total = sum(part.kills for part in parts)
    lost, repeated, wrong = (
        sum(len(found) for found in lists)
        for lists in zip(*((part.lost, part.repeated, part.wrong) for part in parts), strict=True)
    )
    killed_at = sum((Counter(part.killed_at) for part in parts), Counter[str]())
    rows: list[dict[str, Figure]] = [{"killed_at": name, "kills": times} for name, times in killed_at.most_common()]
    details: dict[str, Figure] = {
        "kills": total,
        "lost": lost,
        "repeated": repeated,
        "control_found": found,
        "control_kills": control_kills,
        "seconds": round(sum(part.seconds for part in parts), 1),
        "broker_kills": sum(part.broker_kills for part in parts),
        "takeovers": sum(part.takeovers for part in parts),
        "reading": sum(part.reading for part in parts),
        "seed": seed,
        "facts": sum(part.facts for part in parts),
        "poison": sum(part.poison for part in parts),
        "duplicates": sum(part.duplicates for part in parts),
        "duplicates_expected": sum(part.duplicates_expected for part in parts),
        "stages_succeeded": sum(part.stages_succeeded for part in parts),
        "wrong": wrong,
    }
    return bool(report("kafka_crash", lost + repeated, details, rows, seeds=[seed], keep=total >= FULL))


def read(folder: Path, number: int) -> Part | None:
    """Return a part that is done."""
    path = folder / f"part-{number}.json"
    return msgspec.json.decode(path.read_bytes(), type=Part) if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
