"""How fast the journal appends, beside raw sqlite3 that inserts rows ready as text into the same table.

Both write 100 rows a transaction with a real fsync, into files with the same schema and pragmas that grow
alike, in alternating rounds. Raw sqlite3 does nothing else. The journal starts from events: it encodes them,
takes their digests, looks for duplicates, checks positions, times and the epoch, and moves the input cursor.
DATA= names the folder to write in: on a disk, or the fsync costs nothing.
"""

import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from daemon.core.events import AnyEvent, DataArrived, Record, StageProgressed
from daemon.journal.base import Cursor, scan
from daemon.journal.rows import Row, micros, to_row
from daemon.journal.sqlite import INSERT, SqliteJournal, open_journal
from daemon.journal.sqlite_file import connect_writer
from tests.bench.targets import ROOT, report

BATCH = 100
BATCHES = 40
ROUNDS = 15
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOURCE = "https://data.example/crawler"

Facts = Callable[[int], tuple[str, AnyEvent, bytes | None]]


def arrival(serial: int) -> tuple[str, AnyEvent, bytes | None]:
    """Return a fact from outside, with the text in which it was received."""
    event = DataArrived(
        uri=f"file:///srv/inbox/2026-03-01/part-{serial:08d}.jsonl",
        domain="news",
        bytes=1_048_576 + serial,
        sha256=f"{serial:064x}",
        documents=412,
        tokens=349_525,
    )
    text = (
        f'{{"specversion":"1.0","id":"part-{serial:08d}","source":"{SOURCE}","type":"io.rewarm.data.arrived.v1",'
        f'"subject":"docs-lm","time":"2026-03-01T11:59:58Z","data":{{"uri":"{event.uri}","domain":"news",'
        f'"bytes":{event.bytes},"sha256":"{event.sha256}","documents":412}}}}'
    )
    return f"part-{serial:08d}", event, text.encode()


def progress(serial: int) -> tuple[str, AnyEvent, bytes | None]:
    """Return a fact from a stage."""
    event = StageProgressed(
        run="docs-lm-1200",
        stage="train",
        attempt=1,
        step=serial,
        steps=1_000_000,
        metrics={"loss": 1.25 + serial % 7 / 100, "learning_rate": 0.0003, "tokens_per_second": 48_211.5},
    )
    return str(serial), event, None


def records(facts: Sequence[tuple[str, AnyEvent, bytes | None]], head: int, now: datetime) -> list[Record]:
    """Return facts as the records that follow `head`."""
    return [
        Record(
            position=head + 1 + number,
            recorded_at=now,
            source=SOURCE,
            id=identity,
            event=event,
            pipeline="docs-lm",
            time=NOW,
            text=text,
        )
        for number, (identity, event, text) in enumerate(facts)
    ]


def append_journal(journal: SqliteJournal, batches: Sequence[list[tuple[str, AnyEvent, bytes | None]]]) -> float:
    """Append batches of facts as the daemon does; return the seconds that it took."""
    begin = time.perf_counter()
    for facts in batches:
        with journal.transaction() as transaction:
            head = journal.head()
            known = transaction.find_many((SOURCE, identity) for identity, _, _ in facts)
            fresh = [fact for fact in facts if (SOURCE, fact[0]) not in known]
            transaction.append(records(fresh, head, journal.stamp(NOW)))
            transaction.move(Cursor(name="bench", expected=transaction.cursor("bench"), next=head + len(facts)))
    return time.perf_counter() - begin


def append_raw(connection: sqlite3.Connection, batches: Sequence[list[Row]]) -> float:
    """Insert batches of ready rows; return the seconds that it took."""
    begin = time.perf_counter()
    for rows in batches:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(INSERT, rows)
        connection.execute("COMMIT")
    return time.perf_counter() - begin


def rounds(folder: Path, name: str, facts: Facts) -> Iterator[tuple[float, float]]:
    """Yield events a second of the journal and of raw sqlite3, round by round."""
    with (
        closing(open_journal(folder / f"{name}.db")) as journal,
        closing(connect_writer(folder / f"{name}-raw.db")) as raw,
    ):
        for number in range(-1, ROUNDS):  # the first round warms both up
            first = (number + 1) * BATCHES * BATCH
            batches = [[facts(first + b * BATCH + i) for i in range(BATCH)] for b in range(BATCHES)]
            ready = [
                [to_row(record, micros(NOW)) for record in records(batch, first + b * BATCH, NOW)]
                for b, batch in enumerate(batches)
            ]
            if number % 2:
                slow, fast = append_journal(journal, batches), append_raw(raw, ready)
            else:
                fast, slow = append_raw(raw, ready), append_journal(journal, batches)
            if number >= 0:
                yield BATCHES * BATCH / slow, BATCHES * BATCH / fast


@contextmanager
def folder() -> Iterator[Path]:
    """Give a folder on the disk that is measured, and remove it afterwards."""
    parent = Path(os.environ.get("DATA") or ROOT / "var")
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-journal-", dir=parent) as path:
        yield Path(path)


def main() -> None:
    """Measure both kinds of facts; the value is the lower ratio of the two."""
    rows: list[dict[str, str | float]] = []
    with folder() as path:
        for name, facts in (("received", arrival), ("own", progress)):
            measured = list(rounds(path, name, facts))
            ratios = sorted(ours / raw for ours, raw in measured)
            low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
            rows.append(
                {
                    "facts": name,
                    "ratio": round(middle, 3),
                    "quarter": round(low, 3),
                    "three_quarters": round(high, 3),
                    "ours_per_second": round(statistics.median(ours for ours, _ in measured)),
                    "raw_per_second": round(statistics.median(raw for _, raw in measured)),
                }
            )
        with closing(open_journal(path / "received.db")) as journal:
            begin = time.perf_counter()
            count = sum(1 for _ in scan(journal))
            scanned = count / (time.perf_counter() - begin)
    worst = min(rows, key=lambda row: row["ratio"])
    report(
        "journal",
        float(worst["ratio"]),
        {
            "facts": worst["facts"],
            "quarter": worst["quarter"],
            "three_quarters": worst["three_quarters"],
            "rounds": ROUNDS,
            "events_a_round": BATCH * BATCHES,
            "events_a_transaction": BATCH,
            "scanned_per_second": round(scanned),
        },
        rows,
    )


if __name__ == "__main__":
    main()
