"""Dead letters on the command line: chosen, shown byte for byte, and settled by requests that are facts."""

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemon.cli.letters import hexdump, printable, readable
from daemon.cli.words import summary
from daemon.completion import completer
from daemon.core.events import DataRejected, InputRejected, OperatorRequested
from daemon.core.plans import Amount
from daemon.door import Door, Input, Letter
from daemon.journal.sqlite import SqliteJournal, open_journal
from daemon.loop import Loop
from daemon.restore import restore
from daemon.sources.queue import Inbox

if TYPE_CHECKING:
    from daemon.config import Configuration
    from tests.daemon.cli.conftest import Chronicle, Command

BINARY = bytes(range(256)) * 20
ESCAPE = b'{"type": "\x1b[2Jcleared"'


def refused(
    chronicle: "Chronicle", text: bytes | None, reason: str = "malformed", *, pipeline: str | None = None
) -> int:
    """Record a refused input; return its position."""
    event = InputRejected(reason=reason, message=f"It is {reason}.\nReally.", where="f.json:1", source="/spool", id="n")
    return chronicle.tell(event, source="/rewarm/door", pipeline=pipeline, text=text).position


@pytest.fixture
def letters(chronicle: "Chronicle") -> "dict[str, int]":
    """Record dead letters of every sort; give their positions by name. No daemon runs any more."""
    arrival = chronicle.arrive("prose", 900_000, id="prose-1")
    run = chronicle.pipeline.active
    assert run is not None
    rejected = DataRejected(
        run=run.run,
        stage="ingest",
        attempt=1,
        arrival=arrival.position,
        domain="prose",
        estimate=Amount(arrivals=1, bytes=900_000, tokens=900_000),
        reason="empty",
        message="It is empty.",
    )
    found = {
        "data": chronicle.tell(rejected).position,
        "text": refused(chronicle, b'{\n  "a": "\xc3\xa4"\n'),
        "missing": refused(chronicle, b"{}", "file_missing", pipeline="docs-lm"),
        "binary": refused(chronicle, BINARY),
        "escape": refused(chronicle, ESCAPE),
        "large": refused(chronicle, b"x" * 9999, "too_large"),
        "none": refused(chronicle, None, "empty"),
        "stranger": refused(chronicle, b"{}", "not_an_operator"),
    }
    chronicle.close()
    return found


def listed(rewarm: "Command", *arguments: str) -> list[int]:
    """Return the positions that are listed."""
    told = json.loads(rewarm("dead-letters", "list", *arguments, "--json").out)
    return [letter["position"] for letter in told["dead_letters"]]


def spooled(configuration: "Configuration") -> list[dict[str, object]]:
    """Return the requests that lie in the spool."""
    found = [json.loads(path.read_bytes()) for path in sorted(configuration.spools[0].glob("*.json"))]
    return [event["data"] | {"subject": event["subject"], "id": event["id"]} for event in found]


def carry_out(configuration: "Configuration") -> None:
    """Take what lies in the spool in, as a daemon that starts now."""
    journal: SqliteJournal = open_journal(configuration.journal)
    door = Door(pipelines=configuration.settings.pipelines, roots=configuration.roots)
    loop = Loop(
        journal=journal,
        state=restore(journal).state,
        policies={},
        inbox=Inbox(),
        receive=door.receive,
        complete=completer(door, journal),
        observers=(),
        now=lambda: datetime.now(UTC),
        forget=lambda: None,
        housekeeping=lambda: None,
    )
    for path in sorted(configuration.spools[0].glob("*.json")):
        letter = Letter(text=path.read_bytes(), where=f"{path.name}:1", source="/spool", id=path.name, by="ann")
        loop.commit([Input(offers=(door.receive(letter),))])
        path.unlink()
    journal.close()


def test_the_open_ones_are_listed(rewarm: "Command", letters: "dict[str, int]") -> None:
    """A line each: position, instant, reason, pipeline, origin, and the first line of the message."""
    code, out, err = rewarm("dead-letters", "list")

    assert (code, err) == (0, "")
    row = next(line for line in out.splitlines() if line.split()[:1] == [str(letters["missing"])])
    assert row.split()[3:] == ["file_missing", "docs-lm", "f.json:1", "It", "is", "file_missing."]
    assert "prose-1.jsonl" in out
    assert "Really" not in out
    assert "8 dead letters" in out
    assert listed(rewarm) == list(letters.values())


def test_a_narrow_terminal_folds_nothing(
    rewarm: "Command", letters: "dict[str, int]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """However narrow the terminal is, each dead letter is a line: reasons can be read, copied and searched for."""
    monkeypatch.setenv("COLUMNS", "40")

    lines = rewarm("dead-letters", "list").out.splitlines()

    assert [int(line.split()[0]) for line in lines[1 : 1 + len(letters)]] == list(letters.values())
    assert any("not_an_operator" in line for line in lines)


def test_they_are_chosen_by_reason_pipeline_and_number(rewarm: "Command", letters: "dict[str, int]") -> None:
    """The newest of those that fit; a limit of none is a mistake."""
    assert listed(rewarm, "--reason", "malformed") == [letters["text"], letters["binary"], letters["escape"]]
    assert listed(rewarm, "--pipeline", "docs-lm") == [letters["data"], letters["missing"]]
    assert listed(rewarm, "--limit", "2") == [letters["none"], letters["stranger"]]
    assert listed(rewarm, "--reason", "nothing") == []
    assert "; the last 2 are shown" in rewarm("dead-letters", "list", "--limit", "2").out
    assert rewarm("dead-letters", "list", "--limit", "0").code == 2


def test_without_a_journal_there_is_none(rewarm: "Command", configuration: "Configuration") -> None:
    """A list of nothing is no mistake; to look at one, or settle one, is."""
    assert not configuration.journal.exists()
    assert rewarm("dead-letters", "list").out == "There is no open dead letter.\n"
    assert listed(rewarm) == []
    for action in (["show", "1"], ["retry", "1"], ["drop", "--all", "--yes"]):
        code, _, err = rewarm("dead-letters", *action)
        assert code == 2
        assert "There is no journal" in err


@pytest.mark.parametrize("name", ["text", "binary", "escape", "missing", "data", "none"])
def test_the_raw_bytes_are_those_that_came(
    rewarm: "Command", letters: "dict[str, int]", name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--raw writes them and nothing else; of an arrival, the event that told of it."""
    wanted = {"text": b'{\n  "a": "\xc3\xa4"\n', "binary": BINARY, "escape": ESCAPE, "missing": b"{}"}
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="utf-8"))
    assert rewarm("dead-letters", "show", str(letters[name]), "--raw").code == 0
    assert written.getvalue() == wanted.get(name, b"")


def test_one_is_shown_whole(rewarm: "Command", letters: "dict[str, int]") -> None:
    """Reason, message, origin, fate, and the text as it is."""
    out = rewarm("dead-letters", "show", str(letters["text"])).out
    assert "malformed: It is malformed." in out
    assert "f.json:1 (/spool, id n)" in out
    assert "open: rewarm dead-letters retry, or drop" in out
    assert '{\n  "a": "ä"\n' in out
    told = json.loads(rewarm("dead-letters", "show", str(letters["text"]), "--json").out)
    assert (told["text"], told["bytes"]) == ('{\n  "a": "ä"\n', "ewogICJhIjogIsOkIgo=")
    arrival = json.loads(rewarm("dead-letters", "show", str(letters["data"]), "--json").out)
    assert (arrival["source"], arrival["id"], arrival["arrival"]) == ("/crawler", "prose-1", letters["data"] - 3)
    assert "prose-1.jsonl" in arrival["origin"]


def test_nothing_reaches_a_terminal_that_it_would_obey(rewarm: "Command", letters: "dict[str, int]") -> None:
    """Bytes that are no text, or hold control characters, are shown in hexadecimal, the beginning of them."""
    binary = rewarm("dead-letters", "show", str(letters["binary"])).out
    assert "00000010  10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f  ................" in binary
    assert "all of it: --raw (5,120 bytes)" in binary
    escape = rewarm("dead-letters", "show", str(letters["escape"])).out
    assert "\x1b" not in escape
    assert '{"type": ".[2Jcl' in escape
    assert printable("a\x1b[2J\x9b\u202eb") == "a�[2J��b"
    assert printable("a\n\tb", "\n\t") == "a\n\tb"


def test_a_long_text_is_cut() -> None:
    """A terminal is spared a megabyte."""
    lines = readable(b"word\n" * 100_000)
    assert len(lines) < 1000
    assert lines[-1] == "… all of it: --raw (500,000 bytes)"
    assert list(hexdump(b"")) == []


def test_requests_wait_for_the_next_daemon(
    rewarm: "Command", letters: "dict[str, int]", configuration: "Configuration"
) -> None:
    """Each position is one request in the spool, about its pipeline where there is one; asked twice, it is one."""
    positions = [str(letters["missing"]), str(letters["text"])]
    for _ in range(2):
        code, out, _ = rewarm("dead-letters", "retry", *positions, positions[0], "--because", "mended")
        assert code == 0
        assert "No daemon is running" in out
    events = spooled(configuration)
    assert len({event["id"] for event in events}) == 2
    by_position = {event["dead_letter"]: event for event in events}
    assert {event["verb"] for event in events} == {"retry"}
    assert {event["reason"] for event in events} == {"mended"}
    assert by_position[letters["missing"]]["subject"] == "docs-lm"
    assert by_position[letters["text"]]["subject"] is None


def test_what_came_of_it_is_told(rewarm: "Command", letters: "dict[str, int]", configuration: "Configuration") -> None:
    """Once a daemon has carried the requests out, list and show say so, and nothing can be settled again."""
    refused_again, dropped, pending = (str(letters[name]) for name in ("text", "binary", "data"))
    rewarm("dead-letters", "retry", refused_again, pending)
    rewarm("dead-letters", "drop", dropped)
    carry_out(configuration)

    out = " ".join(rewarm("dead-letters", "list", "--all").out.split())
    assert "dropped at" in out
    assert "by ann" in rewarm("dead-letters", "show", dropped).out
    assert "refused again: dead letter" in rewarm("dead-letters", "show", refused_again).out
    assert "is pending again (retry at" in rewarm("dead-letters", "show", pending).out
    still = listed(rewarm)
    assert not {int(refused_again), int(dropped), int(pending)} & set(still)
    assert len(still) == len(letters) - 2
    for verb in ("retry", "drop"):
        code, _, err = rewarm("dead-letters", verb, dropped)
        assert code == 2
        assert "was settled already: dropped at" in err
    assert not spooled(configuration)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["retry", "1"], "no dead letter at position 1:"),
        (["drop", "999999999999999999999999"], "no dead letter at position 999999999999999999999999:"),
        (["show", "0"], "no dead letter at position 0:"),
        (["drop", "--", "-3"], "no dead letter at position -3:"),
        (["retry"], "Which ones?"),
        (["retry", "--pipeline", "docs-lm"], "Which ones?"),
        (["retry", "5", "--all"], "not both"),
        (["drop", "5", "--reason", "malformed"], "not both"),
        (["retry", "--all"], "Say --yes"),
    ],
)
def test_mistakes_are_told_and_nothing_is_sent(
    rewarm: "Command", letters: "dict[str, int]", configuration: "Configuration", arguments: list[str], message: str
) -> None:
    """A position that is none, a choice that is none, and several at once without a word."""
    code, out, err = rewarm("dead-letters", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert letters
    assert not list(configuration.spools[0].glob("*"))


@pytest.mark.parametrize("name", ["large", "none"])
def test_what_is_not_there_whole_is_not_retried(
    rewarm: "Command", letters: "dict[str, int]", configuration: "Configuration", name: str
) -> None:
    """It is said at once; all that was named beside it waits as well."""
    code, _, err = rewarm("dead-letters", "retry", str(letters["text"]), str(letters[name]))
    assert code == 2
    assert "cannot be retried" in err
    assert not list(configuration.spools[0].glob("*"))


def test_all_can_be_settled_at_once(
    rewarm: "Command", letters: "dict[str, int]", configuration: "Configuration"
) -> None:
    """A retry of all leaves out what is hopeless, and requests of people who had no right to them."""
    code, _, err = rewarm("dead-letters", "retry", "--all", "--yes")
    assert code == 0
    left = {letters[name] for name in ("large", "none", "stranger")}
    assert {event["dead_letter"] for event in spooled(configuration)} == set(letters.values()) - left
    assert "2 dead letters left out" in err
    assert "1 request of senders who may not ask left out" in err


def test_strangers_requests_are_retried_when_they_are_named(
    rewarm: "Command", letters: "dict[str, int]", configuration: "Configuration"
) -> None:
    """By their reason, or by position."""
    rewarm("dead-letters", "retry", "--reason", "not_an_operator", "--yes")
    rewarm("dead-letters", "drop", "--all", "--pipeline", "docs-lm", "--yes")
    found = {(event["verb"], event["dead_letter"]) for event in spooled(configuration)}
    assert found == {("retry", letters["stranger"]), ("drop", letters["data"]), ("drop", letters["missing"])}


@pytest.mark.parametrize(("said", "count"), [("y\n", 3), (" YES\n", 3), ("\n", 0), ("no\n", 0), ("", 0)])
def test_a_person_is_asked_before_many_are_settled(
    rewarm: "Command",
    letters: "dict[str, int]",
    configuration: "Configuration",
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    count: int,
) -> None:
    """At a terminal only a yes is one."""
    terminal = io.StringIO(said)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    told = rewarm("dead-letters", "drop", "--reason", "malformed")
    assert told.err.startswith("Drop 3 dead letters? [y/N] ")
    assert letters
    assert len(list(configuration.spools[0].glob("*.json"))) == count
    assert told.code == (0 if count else 2)


def test_json_says_what_came_of_each(rewarm: "Command", letters: "dict[str, int]") -> None:
    """An object for each position."""
    (told,) = json.loads(rewarm("dead-letters", "drop", str(letters["text"]), "--json").out)
    assert (told["position"], told["outcome"], told["settled"]) == (letters["text"], "waiting", None)
    assert Path(told["message"]).exists()
    assert json.loads(rewarm("dead-letters", "drop", "--reason", "no such", "--json").out) == []


def test_a_request_names_the_dead_letter_in_the_journal() -> None:
    """`rewarm events` shows which one was meant."""
    event = OperatorRequested(verb="retry", dead_letter=41, by="ann", reason="mended")
    assert summary(event) == "retry dead letter 41 by ann: mended"
