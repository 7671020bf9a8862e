"""What was lost and what was repeated, counted by plain means: SQL on the journal, and text files.

Nothing of rewarm is used here: whoever counts must not share an error with whoever is counted.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

PRODUCER = "/bench/producer"
PIPELINES = ("one", "two", "three")
POISON = {
    "bad": "malformed",
    "utf8": "malformed",
    "kind": "unknown_kind",
    "field": "wrong_data",
    "pipeline": "unknown_pipeline",
    "file": "file_missing",
}
"""The sorts of what cannot be accepted, each with the reason that its dead letter must give."""
TERMINAL = {"stage.succeeded", "stage.failed", "stage.interrupted"}
BEGINS = {"run.started", "run.resumed"}
ENDS = {"run.succeeded", "run.failed", "run.cancelled", "run.held", "run.preempted"}

Attempt = tuple[str, str, int]
Row = tuple[int, str, str, str, str | None, int | None, str, bytes | None]


@dataclass(frozen=True, kw_only=True)
class Count:
    """What was counted; every list names what it found, in words."""

    facts: int
    dead_letters: int
    commands: int
    succeeded: int
    interrupted: int
    lost: list[str]
    repeated: list[str]
    wrong: list[str]
    duplicates: int
    duplicates_expected: int


@dataclass(frozen=True, kw_only=True)
class Poison:
    """Something that cannot be accepted: its entry in the ledger, the reason to be given, and how often it was sent."""

    entry: str
    reason: str
    times: int = 1


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What was sent: serials of facts, poison by its text and how often it must be refused, and repeated facts."""

    facts: set[int]
    poison: dict[bytes, Poison]
    duplicates: int
    wrong: list[str] = field(default_factory=list)


def count(journal: Path, state: Path, sent: Sent) -> Count:
    """Compare what the producer sent, the journal, and what the stages noted."""
    with closing(sqlite3.connect(f"{journal.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        rows: list[Row] = connection.execute(
            "SELECT position, source, id, kind, pipeline, cause, data, text FROM record ORDER BY position"
        ).fetchall()
        (duplicates,) = connection.execute("SELECT duplicates FROM journal").fetchone()
    lost: list[str] = []
    repeated: list[str] = []
    wrong = sent.wrong + [f"position {row[0]} is not {n}" for n, row in enumerate(rows, 1) if row[0] != n]

    recorded = Counter(_serial(row[7]) for row in rows if row[3] == "data.arrived")
    for serial in sorted(sent.facts):
        _times(f"fact {serial}", recorded[serial], 1, lost, repeated)
    wrong += [f"fact {serial} was never sent" for serial in recorded if serial not in sent.facts]
    refused = Counter((row[7] or b"", json.loads(row[6])["reason"]) for row in rows if row[3] == "input.rejected")
    for text, each in sent.poison.items():
        _times(f"{each.reason} {each.entry}", refused[text, each.reason], each.times, lost, repeated)
    allowed = {(text, each.reason) for text, each in sent.poison.items()}
    wrong += [f"refused as {reason}: {text!r}" for text, reason in refused if (text, reason) not in allowed]

    commands = dict(_commands(rows))
    attempts: dict[Attempt, Counter[str]] = {}
    for row in rows:
        if row[3] in TERMINAL:
            data = json.loads(row[6])
            attempts.setdefault((data["run"], data["stage"], data["attempt"]), Counter())[row[3]] += 1
    starts, effects = _notes(state / "starts"), _notes(state / "effects")
    done: Counter[tuple[str, str]] = Counter()
    for command, attempt in commands.items():
        ends = attempts.get(attempt, Counter())
        succeeded = ends["stage.succeeded"]
        done[attempt[:2]] += succeeded
        if not ends:
            lost.append(f"command {command} ({attempt}) has no end")
        elif succeeded and not effects[command]:
            lost.append(f"command {command} ({attempt}) succeeded without an effect")
        for what, seen in (("starts", starts[command]), ("effects", effects[command]), ("ends", ends.total())):
            if seen > 1:
                repeated.append(f"command {command} ({attempt}) has {seen} {what}")
    for step, times in done.items():
        _times(f"stage {step}", times, 1, lost, repeated)
    wrong += [f"command {command} was noted and never ordered" for command in starts if command not in commands]
    lost += _unfinished(rows)
    wrong += _two_active(rows)
    return Count(
        facts=len(sent.facts),
        dead_letters=refused.total(),
        commands=len(commands),
        succeeded=done.total(),
        interrupted=sum(ends["stage.interrupted"] for ends in attempts.values()),
        lost=lost,
        repeated=repeated,
        wrong=wrong,
        duplicates=duplicates,
        duplicates_expected=sent.duplicates,
    )


def text_of(entry: str) -> bytes:
    """Return what is sent for an entry of a ledger: a fact, the same again, or poison of some sort."""
    sort, _, number = entry.partition(":")
    serial = int(number)
    if sort == "bad":
        return b'{"serial": %d, "malformed' % serial
    event = {
        "specversion": "1.0",
        "id": number,
        "source": PRODUCER,
        "type": f"io.rewarm.{'coffee.made' if sort == 'kind' else 'data.arrived'}.v1",
        "subject": "nobody" if sort == "pipeline" else PIPELINES[serial % len(PIPELINES)],
        "data": {"uri": "none.jsonl" if sort == "file" else "data.jsonl", "domain": "words"},
    }
    if sort == "field":
        event["data"] = {"domain": "words"}
    text = json.dumps(event).encode()
    return text.replace(b'"subject": "', b'"subject": "\xff') if sort == "utf8" else text


def spooled(ledger: Path) -> Sent:
    """Return what was sent by files in a spool, where the same file a second time is not read."""
    known: set[tuple[str, ...]] = set()
    entries: list[str] = []
    for line in ledger.read_text(encoding="utf-8").splitlines():
        file = line.split()[1:]
        content = tuple(entry.replace("again:", "fact:") for entry in file)
        if content not in known:
            known.add(content)
            entries += file
    return _sent(entries, sum(entry.startswith("again:") for entry in entries))


def produced(ledger: Path, topics: Mapping[bytes, int]) -> Sent:
    """Return what was sent to topics, of which the texts are known that lie there, and how often each.

    A client that was not told that its message is there may send it again; so the topics say how often it was sent.
    """
    entries = [entry for line in ledger.read_text(encoding="utf-8").splitlines() for entry in line.split()[1:]]
    sent = _sent(entries, 0)
    missing = {entry for entry in entries if not topics.get(text_of(entry))}
    return Sent(
        facts=sent.facts,
        poison={
            text: Poison(entry=each.entry, reason=each.reason, times=topics.get(text, 0))
            for text, each in sent.poison.items()
        },
        duplicates=sum(topics.get(text_of(f"fact:{serial}"), 1) - 1 for serial in sent.facts),
        wrong=[f"{entry} is in no topic" for entry in sorted(missing)],
    )


def _sent(entries: Iterable[str], duplicates: int) -> Sent:
    facts: set[int] = set()
    poison: dict[bytes, Poison] = {}
    for entry in entries:
        sort, _, serial = entry.partition(":")
        if sort == "fact":
            facts.add(int(serial))
        elif sort in POISON:
            poison[text_of(entry)] = Poison(entry=entry, reason=POISON[sort])
    return Sent(facts=facts, poison=poison, duplicates=duplicates)


def _times(what: str, times: int, expected: int, lost: list[str], repeated: list[str]) -> None:
    if times < expected:
        lost.append(f"{what} is {'nowhere' if not times else f'there {times} times, not {expected}'}")
    if times > expected:
        repeated.append(f"{what} is there {times} times, not {expected}")


def _serial(text: bytes | None) -> int:
    return int(json.loads(text or b"")["id"])


def _commands(rows: Iterable[Row]) -> Iterable[tuple[str, Attempt]]:
    """Yield every order of a stage attempt: the start of a run orders its first stage."""
    for position, _, _, kind, pipeline, cause, text, _ in rows:
        if kind == "run.started":
            data = json.loads(text)
            yield data["command"], (data["run"], data["plan"]["stages"][0], 1)
        elif kind == "decision.made":
            data = json.loads(text)
            if data["suppressed_by"] is None:
                for ordinal, command in enumerate(data["commands"]):
                    if command["command"] == "run_stage":
                        identity = f"{cause or position}/{pipeline}/{data['policy']}/{ordinal}"
                        yield identity, (command["run"], command["stage"], command["attempt"])


def _notes(path: Path) -> Counter[str]:
    if not path.exists():
        return Counter()
    return Counter(line.split()[0] for line in path.read_text(encoding="utf-8").splitlines())


def _unfinished(rows: Iterable[Row]) -> list[str]:
    begun = {json.loads(row[6])["run"]: row[0] for row in rows if row[3] == "run.started"}
    for row in rows:
        if row[3] in ENDS:
            begun.pop(json.loads(row[6])["run"], None)
    return [f"run {run}, started at {position}, has no end" for run, position in begun.items()]


def _two_active(rows: Iterable[Row]) -> list[str]:
    active: dict[str | None, str] = {}
    wrong = []
    for position, _, _, kind, pipeline, _, text, _ in rows:
        if kind in BEGINS:
            if pipeline in active:
                wrong.append(f"position {position}: {pipeline} has two active runs")
            active[pipeline] = json.loads(text)["run"]
        elif kind in ENDS:
            active.pop(pipeline, None)
    return wrong
