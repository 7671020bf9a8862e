"""Bad input by the spool: each ends in rejected/ with its reason in the journal, and nothing else is lost."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from daemon.core.events import DataArrived, InputRejected, Record
from daemon.journal.sqlite import open_reader
from tests.acceptance.home import Home, event

pytestmark = pytest.mark.slow

DEEP = "[" * 10_000 + "]" * 10_000


def arrival(
    uri: object = "data.jsonl", identity: str | None = "bad", *, pipeline: str = "one", **envelope: object
) -> dict[str, Any]:
    """Return an arrival of data."""
    return event("data.arrived", {"uri": uri, "domain": "words"}, identity, pipeline=pipeline, **envelope)


def text(content: object) -> bytes:
    """Return JSON."""
    return json.dumps(content).encode()


@dataclass(frozen=True)
class Case:
    """What is sent, and the reason that is expected."""

    reason: str
    content: bytes


OUTSIDE = "outside_roots"
CASES = {
    "malformed": Case("malformed", b'{"type": "io.rewarm.data.arrived.v1", "data": {'),
    "no-object": Case("wrong_envelope", b"42"),
    "null": Case("wrong_envelope", b"null"),
    "not-utf-8": Case("wrong_data", text(arrival()).replace(b"words", b"w\xf6rds")),
    "lone-surrogate": Case("malformed", text(arrival()).replace(b"data.jsonl", b"\\ud800")),
    "empty": Case("empty", b""),
    "blank": Case("empty", b" \n\n"),
    "deep-array": Case("wrong_envelope", DEEP.encode()),
    "deep-envelope": Case("wrong_envelope", b'{"type": %s}' % DEEP.encode()),
    "deep-data": Case("malformed", text(arrival()).replace(b'"data.jsonl"', DEEP.encode())),
    "two-megabytes": Case("too_large", text(arrival("x" * (2 << 20)))),
    "unknown-kind": Case("unknown_kind", text({**arrival(), "type": "io.rewarm.data.exploded.v1"})),
    "strange-type": Case("unknown_kind", text({**arrival(), "type": "\n"})),
    "newer-version": Case("wrong_data", text({**arrival(), "type": "io.rewarm.data.arrived.v2"})),
    "our-own-kind": Case("forbidden_kind", text(event("decision.made", {"policy": "me"}, "bad"))),
    "a-stages-kind": Case("forbidden_kind", text(event("stage.succeeded", {"run": "one-1"}, "bad"))),
    "our-own-source": Case("forbidden_source", text(arrival(source="/rewarm/daemon"))),
    "a-stages-source": Case("forbidden_source", text(arrival(source="/rewarm/runs/one-1/train/1"))),
    "wrong-type": Case("wrong_data", text(arrival(5))),
    "wrong-domain": Case("wrong_data", text(event("data.arrived", {"uri": "a", "domain": "../a"}, "bad"))),
    "no-data": Case("wrong_data", text({key: value for key, value in arrival().items() if key != "data"})),
    "missing-id": Case("missing_id", text(arrival(identity=None))),
    "missing-source": Case("missing_source", text(arrival(source=None))),
    "wrong-time": Case("wrong_time", text(arrival(time="yesterday"))),
    "time-without-zone": Case("wrong_time", text(arrival(time="2026-03-01T12:00:00"))),
    "unknown-pipeline": Case("unknown_pipeline", text(arrival(pipeline="three"))),
    "no-pipeline": Case("unknown_pipeline", text(arrival(subject=None))),
    "dot-dot": Case(OUTSIDE, text(arrival("../secret.jsonl"))),
    "absolute": Case(OUTSIDE, text(arrival("/etc/hostname"))),
    "symlink": Case(OUTSIDE, text(arrival("link.jsonl"))),
    "symlinked-folder": Case(OUTSIDE, text(arrival("folder/secret.jsonl"))),
    "file-uri": Case(OUTSIDE, text(arrival("file:///etc/hostname"))),
    "file-uri-with-a-host": Case(OUTSIDE, text(arrival("file://server/data.jsonl"))),
    "encoded-dots": Case(OUTSIDE, text(arrival("file:///%2e%2e/etc/hostname"))),
    "nul": Case(OUTSIDE, text(arrival("data.jsonl\0"))),
    "bad-host": Case(OUTSIDE, text(arrival("file://[::1/data.jsonl"))),
    "other-scheme": Case("unknown_scheme", text(arrival("https://server/data.jsonl"))),
    "very-long-name": Case("file_missing", text(arrival("x" * 300))),
    "vanished": Case("file_missing", text(arrival("gone.jsonl"))),
    "a-folder": Case("not_a_file", text(arrival("."))),
    "id-reused": Case("id_reused", text(arrival("other.jsonl", "good"))),
    "unknown-verb": Case("wrong_data", text(event("operator.requested", {"verb": "explode"}, "bad"))),
    "unknown-arrival": Case(
        "unknown_arrival", text(event("data.withdrawn", {"arrival_source": "/test", "arrival_id": "none"}, "bad"))
    ),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Give a home whose daemon was sent everything bad between two good events, one of them twice."""
    home = Home(tmp_path_factory.mktemp("home"))
    home.configure(after_tokens=10**9)
    home.data()
    home.data(name="other.jsonl")
    (home.folder / "secret.jsonl").write_text("{}\n", encoding="utf-8")
    (home.inbox / "link.jsonl").symlink_to(home.folder / "secret.jsonl")
    (home.inbox / "folder").symlink_to(home.folder)
    home.start()
    home.send(arrival(identity="good"), "000.json")
    home.wait_for(DataArrived)
    for name, case in CASES.items():
        home.send(case.content, f"{name}.json")
    home.send(text(arrival(identity="good")) + b"\n\n", "again.jsonl")
    home.send(text(arrival(identity="mixed")) + b"\n{\n" + text(arrival(identity="mixed too")), "mixed.jsonl")
    home.send(arrival(identity="last"), "zzz.json")
    home.wait(home.read_out, "an empty spool")
    yield home
    home.close()


def letters(home: Home, name: str) -> list[Record]:
    """Return the dead letters that a file has become."""
    return [
        record
        for record in home.records()
        if isinstance(record.event, InputRejected) and record.event.where.partition(":")[0] == name
    ]


@pytest.mark.parametrize("name", CASES)
def test_bad_input_becomes_a_dead_letter_with_its_reason(told: Home, name: str) -> None:
    """The file lies in rejected/ as it came; the journal has one dead letter with reason, words and the text."""
    file = f"{name}.json"
    assert (told.spool / "rejected" / file).read_bytes() == CASES[name].content
    (letter,) = letters(told, file)
    assert isinstance(letter.event, InputRejected)
    assert (letter.event.reason, letter.source) == (CASES[name].reason, "/rewarm/door")
    assert letter.event.message.endswith(".")
    assert letter.text == CASES[name].content.strip()[: 1 << 20] or CASES[name].reason == "empty"


def test_good_input_between_the_bad_is_taken(told: Home) -> None:
    """What is good was recorded once, in its order, and its files lie in processed/."""
    good = [record.id for record in told.records() if isinstance(record.event, DataArrived)]
    assert good == ["good", "mixed", "mixed too", "last"]
    assert {path.name for path in (told.spool / "processed").iterdir()} == {"000.json", "again.jsonl", "zzz.json"}
    with open_reader(told.journal) as reader:
        assert reader.duplicates() == 1


def test_a_bad_line_takes_no_good_one_with_it(told: Home) -> None:
    """A file with one bad line lies in rejected/, its other lines are facts."""
    assert (told.spool / "rejected" / "mixed.jsonl").exists()
    (letter,) = letters(told, "mixed.jsonl")
    assert isinstance(letter.event, InputRejected)
    assert (letter.event.reason, letter.event.where, letter.event.source) == ("malformed", "mixed.jsonl:2", "/spool")
    assert told.fold().dead_letters == len(CASES) + 1
