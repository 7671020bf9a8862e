"""What was lost and what was repeated, counted by plain means: SQL on the journal, and text files.

Nothing of rewarm is used here: whoever counts must not share an error with whoever is counted.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

PRODUCER = "/bench/producer"
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


def count(journal: Path, state: Path, ledger: Path) -> Count:
    """Compare the producer's ledger, the journal, and what the stages noted."""
    with closing(sqlite3.connect(f"{journal.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        rows: list[Row] = connection.execute(
            "SELECT position, source, id, kind, pipeline, cause, data, text FROM record ORDER BY position"
        ).fetchall()
        (duplicates,) = connection.execute("SELECT duplicates FROM journal").fetchone()
    lost: list[str] = []
    repeated: list[str] = []
    wrong = [f"position {row[0]} is not {n}" for n, row in enumerate(rows, 1) if row[0] != n]
    facts, bad, again = read_ledger(ledger)

    recorded = Counter(_serial(row[7]) for row in rows if row[3] == "data.arrived")
    refused = Counter(row[7] or b"" for row in rows if row[3] == "input.rejected")
    for serial in sorted(facts):
        _once(f"fact {serial}", recorded[serial], lost, repeated)
    for serial in sorted(bad):
        _once(f"malformed line {serial}", refused[malformed(serial)], lost, repeated)
    wrong += [f"fact {serial} was never sent" for serial in recorded if serial not in facts]
    wrong += [f"refused: {text!r}" for text in refused if text not in {malformed(serial) for serial in bad}]

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
        _once(f"stage {step}", times, lost, repeated)
    wrong += [f"command {command} was noted and never ordered" for command in starts if command not in commands]
    lost += _unfinished(rows)
    wrong += _two_active(rows)
    return Count(
        facts=len(facts),
        dead_letters=refused.total(),
        commands=len(commands),
        succeeded=done.total(),
        interrupted=sum(ends["stage.interrupted"] for ends in attempts.values()),
        lost=lost,
        repeated=repeated,
        wrong=wrong,
        duplicates=duplicates,
        duplicates_expected=again,
    )


def malformed(serial: int) -> bytes:
    """Return the malformed line with this serial number."""
    return b'{"serial": %d, "malformed' % serial


def read_ledger(ledger: Path) -> tuple[set[int], set[int], int]:
    """Return the serials of facts and of malformed lines that were sent, and how often a fact was sent again."""
    facts: set[int] = set()
    bad: set[int] = set()
    again = 0
    known: set[tuple[str, ...]] = set()
    for line in ledger.read_text(encoding="utf-8").splitlines():
        entries = line.split()[1:]
        content = tuple(entry.replace("again:", "fact:") for entry in entries)
        if content in known:
            continue  # the same bytes a second time: the spool knows the file
        known.add(content)
        for entry in entries:
            kind, _, serial = entry.partition(":")
            match kind:
                case "fact":
                    facts.add(int(serial))
                case "bad":
                    bad.add(int(serial))
                case _:
                    again += 1
    return facts, bad, again


def _once(what: str, times: int, lost: list[str], repeated: list[str]) -> None:
    if times == 0:
        lost.append(f"{what} is nowhere")
    if times > 1:
        repeated.append(f"{what} is there {times} times")


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
