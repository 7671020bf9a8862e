"""A daemon killed a thousand times: at every named write boundary in turn, and at random instants.

KILLS= and SEED= can be given; DATA= names the folder to work in. What is done already is kept there, so an
interrupted bench goes on when it is started again. Afterwards the negative control: a journal whose input
cursors stand outside the transaction must lose something.
"""

import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from daemon.core.errors import JournalError
from daemon.journal.sqlite import open_reader
from ops.comparison import behind
from tests.bench.crash_daemons import Nursery
from tests.bench.crash_world import Kill, Killed, World, choose, recorder, same_hashes, tracking_uri, wait_for
from tests.bench.targets import ROOT, report

FULL = 1000
CHECK_EVERY = 50
WORKER_EVERY = 60
CONTROL_KILLS = 30
CONTROL_PATIENCE = 15.0
RECORDER_PATIENCE = 300.0


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """One kill that is done."""

    number: int
    boundary: str | None
    reached: bool
    seconds: float


def main() -> int:
    """Kill, count, and see that the control is caught."""
    kills, seed = int(os.environ.get("KILLS") or FULL), int(os.environ.get("SEED") or 1)
    folder = Path(os.environ.get("DATA") or ROOT / "var") / f"bench-crash-{kills}-{seed}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the daemons end with the bench
    world = World(folder / "main")
    notes = folder / "kills.jsonl"
    done = read(notes)
    if done:
        print(f"{len(done)} of {kills} kills are done already.", flush=True)
    if not world.journal.exists():
        with Nursery() as nursery:
            world.drain(nursery)
    with Nursery() as nursery, recorder(world) as process:
        wrong = killing(world, nursery, notes, kills, seed)
        if not world.drain(nursery):
            wrong.append("The daemon does not come to rest.")
        late = not wait_for(lambda: lag(world) == 0, RECORDER_PATIENCE)
        if process.poll() is not None:
            wrong.append("The recorder ended by itself.")
    world.retire()
    counted = world.count()
    wrong += counted.wrong + same_hashes(world.journal)
    found, control_kills = control(folder / "control", seed)
    done = read(notes)
    rows = table(done)
    details = {
        "kills": len(done),
        "lost": len(counted.lost),
        "repeated": len(counted.repeated),
        "control_found": found,
        "control_kills": control_kills,
        "seconds": round(sum(note.seconds for note in done), 1),
        "facts": counted.facts,
        "dead_letters": counted.dead_letters,
        "duplicates": counted.duplicates,
        "duplicates_expected": counted.duplicates_expected,
        "commands": counted.commands,
        "stages_succeeded": counted.succeeded,
        "stages_killed": counted.interrupted,
        "wrong": len(wrong),
        "recorder_behind": lag(world) if late else 0,
    }
    for line in [*counted.lost, *counted.repeated, *wrong][:50]:
        print(line)
    bad = len(counted.lost) + len(counted.repeated)
    held = report("crash", bad, details, rows, seeds=[seed], keep=kills >= FULL)
    if held and not wrong and counted.duplicates == counted.duplicates_expected:
        shutil.rmtree(folder)
        return 0
    print(f"What happened lies in {folder}.", file=sys.stderr)
    return 1


def killing(world: World, nursery: Nursery, notes: Path, kills: int, seed: int) -> list[str]:
    """Do the kills that are still to be done; return what was found wrong meanwhile."""
    wrong: list[str] = []
    done = len(read(notes))
    began = time.monotonic()
    for number in range(done, kills):
        rng = random.Random(f"{seed}/{number}")
        if number % WORKER_EVERY == WORKER_EVERY - 1:
            world.kill_worker()
        killed = world.kill(nursery, choose(rng, number), rng)
        note(notes, number, killed)
        if (number + 1) % CHECK_EVERY == 0:
            wrong += same_hashes(world.journal)
            each = (time.monotonic() - began) / (number + 1 - done)
            end = datetime.now().astimezone() + timedelta(seconds=each * (kills - number - 1))
            print(f"{number + 1} kills, {each:.2f} s each; ends about {end:%H:%M}.", flush=True)
    return wrong


def control(folder: Path, seed: int) -> tuple[int, int]:
    """Kill daemons with loose cursors until something is lost or repeated; return how much, and after how many."""
    shutil.rmtree(folder, ignore_errors=True)
    world = World(folder)
    found = 0
    number = 0
    with Nursery() as nursery:
        while not found and number < CONTROL_KILLS:
            for _ in range(5):
                rng = random.Random(f"control {seed}/{number}")
                boundary = "journal.before_commit" if number % 2 == 0 else None
                kill = Kill(boundary=boundary, count=rng.randint(2, 4), delay=rng.uniform(0, 0.5), loose=True)
                world.kill(nursery, kill, rng)
                number += 1
            world.drain(nursery, patience=CONTROL_PATIENCE, loose=True)
            counted = world.count()
            found = len(counted.lost) + len(counted.repeated)
    world.retire()
    return found, number


def lag(world: World) -> int | None:
    """Return how far the recorder is behind the journal."""
    try:
        with open_reader(world.journal) as reader:
            return behind(reader.head(), tracking_uri(world), world.state)
    except JournalError:
        return None


def note(path: Path, number: int, killed: Killed) -> None:
    """Keep what is done."""
    with path.open("ab") as file:
        file.write(
            msgspec.json.encode(
                Note(
                    number=number,
                    boundary=killed.boundary,
                    reached=killed.reached,
                    seconds=round(killed.seconds, 3),
                )
            )
            + b"\n"
        )


def read(path: Path) -> list[Note]:
    """Return the kills that are done."""
    if not path.exists():
        return []
    return [msgspec.json.decode(line, type=Note) for line in path.read_bytes().splitlines()]


def table(done: list[Note]) -> list[dict[str, str | int | float | bool | None]]:
    """Return how often each boundary was aimed at and reached."""
    aimed = Counter(note.boundary or "a random instant" for note in done)
    reached = Counter(note.boundary for note in done if note.reached)
    seconds: Counter[str] = Counter()
    for note in done:
        seconds[note.boundary or "a random instant"] += round(1000 * note.seconds)
    return [
        {
            "killed_at": name,
            "kills": times,
            "reached": reached.get(name),
            "mean_seconds": round(seconds[name] / 1000 / times, 2),
        }
        for name, times in aimed.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
