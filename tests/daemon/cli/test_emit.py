"""Events by the spool: checked before they are sent, whole when they lie there, looked for in the journal."""

import hashlib
import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import msgspec
import pytest

from daemon.cli.delivery import Answer, CloudEvent, Delivered, await_answer, deliver, envelope, find_answer
from daemon.cli.emit import described_elsewhere, format_of
from daemon.cli.post import Target
from daemon.cli.request import ELSEWHERE, MEANINGS
from daemon.core.errors import RewarmError
from daemon.core.events import DataArrived, InputRejected, OperatorRequested, Verb
from daemon.door import Door, Letter
from daemon.journal.base import Cursor
from daemon.journal.memory import MemoryJournal
from stages.roots import Remote
from stages.training.reading import Unusable

if TYPE_CHECKING:
    from daemon.config import Configuration
    from tests.daemon.cli.conftest import Chronicle, Command

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def spooled(configuration: "Configuration") -> list[dict[str, object]]:
    """Return the events that lie in the spool."""
    return [json.loads(path.read_bytes()) for path in sorted(configuration.spools[0].glob("*.json"))]


@pytest.fixture
def arrival(configuration: "Configuration") -> Path:
    """A file in the first root."""
    path = configuration.roots[0] / "manual.jsonl"
    path.write_text('{"text": "a line"}\n', encoding="utf-8")
    return path


def test_a_file_becomes_a_cloud_event_with_size_and_hash(
    rewarm: "Command", configuration: "Configuration", arrival: Path
) -> None:
    """`emit data` describes a file: where it lies, its domain, bytes and sha256, under a new id."""
    code, out, err = rewarm("emit", "data", "docs-lm", str(arrival), "--domain", "manuals")

    assert (code, err) == (0, "")
    assert "No daemon is running" in out
    (event,) = spooled(configuration)
    assert event["specversion"] == "1.0"
    assert event["type"] == "io.rewarm.data.arrived.v1"
    assert event["subject"] == "docs-lm"
    assert str(event["source"]).startswith("/cli/")
    assert datetime.fromisoformat(str(event["time"])).tzinfo is not None
    assert event["data"] == {
        "uri": arrival.as_uri(),
        "domain": "manuals",
        "format": "jsonl",
        "bytes": arrival.stat().st_size,
        "sha256": hashlib.sha256(arrival.read_bytes()).hexdigest(),
    }


def test_tokens_may_be_announced(rewarm: "Command", configuration: "Configuration", arrival: Path) -> None:
    """Examples of a module are fewer than their bytes: whoever sends them can say how many."""
    assert rewarm("emit", "data", "docs-lm", str(arrival), "--domain", "manuals", "--tokens", "7").code == 0
    (event,) = spooled(configuration)
    assert isinstance(event["data"], dict)
    assert event["data"]["tokens"] == 7


def test_what_is_sent_passes_the_daemons_door(rewarm: "Command", configuration: "Configuration", arrival: Path) -> None:
    """The daemon accepts the very bytes that lie in the spool."""
    rewarm("emit", "data", "docs-lm", str(arrival), "--domain", "manuals", "--id", "one", "--source", "/me")
    (path,) = configuration.spools[0].glob("*.json")
    door = Door(pipelines=configuration.settings.pipelines, roots=configuration.roots)

    offer = door.receive(Letter(text=path.read_bytes(), where="spool", source="/spool", id="x"))

    assert offer.refusal is None
    assert (offer.source, offer.id, offer.pipeline) == ("/me", "one", "docs-lm")
    assert isinstance(offer.event, DataArrived)


def test_the_ending_of_a_file_tells_its_format(
    rewarm: "Command", configuration: "Configuration", arrival: Path
) -> None:
    """A .txt file is text unless --format says otherwise."""
    text = arrival.with_suffix(".txt")
    text.write_text("words", encoding="utf-8")

    rewarm("emit", "data", "docs-lm", str(text), "--domain", "manuals")

    assert spooled(configuration)[0]["data"]["format"] == "text"  # type: ignore[index]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["data.arrived", "docs-lm", "--data", '{"uri": "x"}'], "missing required field `domain`"),
        (["data.arrived", "docs-lm", "--data", '{"uri": "x", "domain": "a", "bytes": -1}'], "`$.bytes`"),
        (["data.arrived", "docs-lm", "--data", "{x"], "no JSON object"),
        (["data.arrived", "other", "--data", '{"uri": "x", "domain": "a"}'], "known: docs-lm"),
        (["run.failed", "docs-lm"], "told by rewarm alone"),
        (["data.came", "docs-lm"], "known: data.arrived"),
        (["data", "docs-lm"], "needs the file and its domain"),
        (["data", "docs-lm", "missing.jsonl", "--domain", "a"], "missing.jsonl cannot be read"),
        (["data.arrived", "docs-lm", "file.jsonl"], "--data"),
        (["drift.detected", "docs-lm", "--source", "/rewarm/x", "--data", '{"metric": "m", "value": 1}'], "own"),
    ],
)
def test_what_the_door_would_refuse_is_not_sent(
    rewarm: "Command", configuration: "Configuration", arguments: list[str], told: str
) -> None:
    """A wrong event is refused before it is sent, with what is wrong."""
    code, _, err = rewarm("emit", *arguments)

    assert code == 2
    assert told in err
    assert not configuration.spools[0].exists() or not spooled(configuration)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--data", f'{{"a": {"[" * 100_000}{"]" * 100_000}}}'],
        ["--data", '{"a": "\udcff"}'],
        ["--data", '{"metric": "m", "value": 1}', "--id", "\udcff"],
        ["--data", '{"metric": "m", "value": 1}', "--source", "\udcff"],
    ],
)
def test_what_is_no_text_is_told(rewarm: "Command", configuration: "Configuration", arguments: list[str]) -> None:
    """Nested without end, or bytes on the command line that are no UTF-8: a mistake of whoever asks."""
    code, _, err = rewarm("emit", "drift.detected", "docs-lm", *arguments)
    assert (code, "Traceback" in err) == (2, False)
    assert spooled(configuration) == []


def test_a_file_outside_the_roots_is_sent_with_a_warning(
    rewarm: "Command", configuration: "Configuration", tmp_path: Path
) -> None:
    """What may be right once the daemon reads it is sent, but the doubt is told."""
    outside = tmp_path / "outside.jsonl"
    outside.write_text('{"text": "a"}\n', encoding="utf-8")

    code, _, err = rewarm("emit", "data", "docs-lm", str(outside), "--domain", "manuals")

    assert code == 0
    assert "outside the configured roots" in err
    assert len(spooled(configuration)) == 1


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a.jsonl", "jsonl"),
        ("a.jsonl.gz", "jsonl"),
        ("a.jsonl.zst", "jsonl"),
        ("A.TXT", "text"),
        ("a.md.gz", "text"),
        ("a.parquet", "parquet"),
        ("a.pq", "parquet"),
        ("a.gz", "jsonl"),
        ("a", "jsonl"),
        ("s3://bucket/in/a.txt.zst", "text"),
    ],
)
def test_a_name_tells_the_format(name: str, wanted: str) -> None:
    """By its ending, behind that of a compression."""
    assert format_of(name) == wanted


def test_a_url_is_described_by_its_store(configuration: "Configuration", monkeypatch: pytest.MonkeyPatch) -> None:
    """Its size is asked for below a configured root alone; a store that refuses is told."""
    asked: list[tuple[str, Remote]] = []
    remote = Remote(url="s3://bucket/in")

    def size_of(url: str, root: Remote) -> int:
        asked.append((url, root))
        return 7

    monkeypatch.setattr("stages.training.reading.remote.size_of", size_of)
    far = msgspec.structs.replace(configuration, remotes=(remote,))

    told = json.loads(described_elsewhere(far, "s3://bucket/in/a.parquet", "manuals"))
    assert told == {"uri": "s3://bucket/in/a.parquet", "domain": "manuals", "format": "parquet", "bytes": 7}
    assert asked == [("s3://bucket/in/a.parquet", remote)]
    assert "bytes" not in json.loads(described_elsewhere(far, "s3://other/a.parquet", "manuals"))
    assert len(asked) == 1

    def gone(url: str, _: Remote) -> int:
        raise Unusable("vanished", f"{url} is not there (any more).")

    monkeypatch.setattr("stages.training.reading.remote.size_of", gone)
    with pytest.raises(RewarmError, match="not there"):
        described_elsewhere(far, "s3://bucket/in/a.parquet", "manuals")


def test_a_url_below_no_root_is_sent_with_a_warning(rewarm: "Command", configuration: "Configuration") -> None:
    """As a file is: the configuration may change until the daemon reads it."""
    code, _, err = rewarm("emit", "data", "docs-lm", "s3://bucket/in/a.jsonl", "--domain", "manuals")
    assert code == 0
    assert "would be refused" in err
    (event,) = spooled(configuration)
    assert event["data"] == {"uri": "s3://bucket/in/a.jsonl", "domain": "manuals", "format": "jsonl"}


def test_only_whole_files_appear(configuration: "Configuration", monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the spool is complete the moment it can be seen, and nothing is left when writing fails."""
    event = envelope("drift.detected", "docs-lm", b'{"metric": "psi", "value": 0.3}', now=NOW, identity="a/b")
    sent = deliver(configuration, event, 0)
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))

    with pytest.raises(Exception, match="No space left"):
        deliver(configuration, event, 0)

    assert [path.name for path in configuration.spools[0].iterdir()] == [Path(sent.file).name]
    assert "-a_b-" in Path(sent.file).name


@pytest.fixture
def journal() -> MemoryJournal:
    """An empty journal."""
    return MemoryJournal()


@pytest.fixture
def sent() -> Delivered:
    """An event on its way."""
    return Delivered(id="one", source="/me", type="t", cursor="spool:ab", where="one-1.json:1")


def read(journal: MemoryJournal) -> None:
    """Move the spool's cursor as the daemon does."""
    with journal.transaction() as transaction:
        transaction.move(Cursor(name="spool:ab", expected=None, next=1))


def test_an_event_waits_until_the_spool_was_read(journal: MemoryJournal, sent: Delivered) -> None:
    """As long as the spool's cursor has not moved there is no answer."""
    assert find_answer(journal, sent).outcome == "waiting"


def test_an_event_that_was_read_without_a_record_is_a_duplicate(journal: MemoryJournal, sent: Delivered) -> None:
    """The cursor has moved, and the journal has neither a record nor a dead letter of it."""
    read(journal)

    assert find_answer(journal, sent).outcome == "duplicate"


def test_accepted_and_refused_events_are_found(chronicle: "Chronicle") -> None:
    """A record with the same source and id means accepted; a dead letter of the same file is told with its reason."""
    good = chronicle.arrive("prose", 10, id="one", source="/me")
    refused = InputRejected(reason="id_reused", message="Another content.", where="two-1.json:1")
    bad = chronicle.tell(refused, pipeline=None)
    with chronicle._journal.transaction() as transaction:  # noqa: SLF001 - stands in for the daemon
        transaction.move(Cursor(name="spool:ab", expected=None, next=1))
    first = Delivered(id="one", source="/me", type="t", cursor="spool:ab", where="one-1.json:1")
    second = Delivered(id="two", source="/me", type="t", cursor="spool:ab", where="two-1.json:1")

    assert find_answer(chronicle._journal, first) == Answer(outcome="accepted", position=good.position)  # noqa: SLF001
    assert find_answer(chronicle._journal, second) == Answer(  # noqa: SLF001
        outcome="dead_letter", position=bad.position, reason="id_reused", message="Another content."
    )


def test_waiting_ends_after_its_time() -> None:
    """Without a daemon the wait ends by itself."""
    slept: list[float] = []

    answer = await_answer(lambda: Answer(outcome="waiting"), 0.25, sleep=slept.append)

    assert answer.outcome == "waiting"
    assert 2 <= len(slept) <= 4


def test_wait_says_what_became_of_it(
    rewarm: "Command", configuration: "Configuration", chronicle: "Chronicle", arrival: Path
) -> None:
    """`emit --wait` ends when the event is in the journal, and says at which position."""

    def daemon() -> None:
        spool = configuration.spools[0]
        while not (files := list(spool.glob("*.json"))):
            pass
        data = files[0].read_bytes()
        chronicle.arrive("manuals", 10, id="one", source="/me")
        with chronicle._journal.transaction() as transaction:  # noqa: SLF001 - stands in for the daemon
            name = f"spool:{hashlib.sha256(data).hexdigest()}"
            transaction.move(Cursor(name=name, expected=None, next=1))

    thread = threading.Thread(target=daemon)
    thread.start()
    sending = ["emit", "data", "docs-lm", str(arrival), "--domain", "manuals", "--id", "one", "--source", "/me"]
    code, out, _ = rewarm(*sending, "--wait", "--json")
    thread.join()

    assert code == 0
    assert json.loads(out)["answer"]["outcome"] == "accepted"


def test_a_request_says_what_was_decided_on_it(
    rewarm: "Command", chronicle: "Chronicle", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accepted is not yet done: what is not possible is told at once, with the reason."""
    monkeypatch.setattr("daemon.cli.emit.find_target", lambda *_: Target(url="http://here", token="t", given=True))

    def accept(_: Target, event: CloudEvent) -> Answer:
        request = OperatorRequested(verb=json.loads(bytes(event.data))["verb"], by="ann")
        record = chronicle.tell(request, source=event.source, id=event.id)
        return Answer(outcome="accepted", position=record.position)

    monkeypatch.setattr("daemon.cli.emit.post", accept)

    code, out, _ = rewarm("request", "rollback", "docs-lm")

    assert code == 0
    assert "Accepted at position" in out
    assert "operator → not_possible: There is no previous champion. Asked by ann." in out
    assert "→" not in rewarm("request", "pause", "docs-lm").out


def test_a_wait_in_vain_is_told(rewarm: "Command", arrival: Path) -> None:
    """Nobody reads the spool: exit code 1, and the file stays for the next daemon."""
    sending = ["emit", "data", "docs-lm", str(arrival), "--domain", "manuals", "--wait", "--timeout", "0"]

    code, out, _ = rewarm(*sending)

    assert code == 1
    assert "the next one reads it" in out


def test_a_request_names_verb_run_and_reason(rewarm: "Command", configuration: "Configuration") -> None:
    """`request` sends operator.requested; who asks is stamped by the daemon, not told."""
    code, _, _ = rewarm("request", "cancel", "docs-lm", "--run", "docs-lm-7", "--reason", "wrong data")

    assert code == 0
    (event,) = spooled(configuration)
    assert event["type"] == "io.rewarm.operator.requested.v1"
    assert event["data"] == {"verb": "cancel", "run": "docs-lm-7", "reason": "wrong data"}


def test_requests_are_read_in_the_order_in_which_they_were_made(
    rewarm: "Command", configuration: "Configuration"
) -> None:
    """While no daemon runs they wait under names that keep it: the last word stays the last one."""
    verbs = ["pause", "resume", "retrain", "pause", "resume", "cancel"]
    for verb in verbs:
        rewarm("request", verb, "docs-lm")

    files = sorted(configuration.spools[0].iterdir())
    assert [json.loads(path.read_bytes())["data"]["verb"] for path in files] == verbs


def test_what_was_sent_can_be_copied(
    rewarm: "Command", configuration: "Configuration", monkeypatch: pytest.MonkeyPatch
) -> None:
    """However narrow the terminal is, the path of the file in the spool is one line."""
    monkeypatch.setenv("COLUMNS", "40")

    out = rewarm("request", "pause", "docs-lm").out

    (path,) = configuration.spools[0].iterdir()
    assert f"  {path}" in out.splitlines()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["explode", "docs-lm"], "Known: pause, resume"),
        (["pause", "other"], "Configured: docs-lm"),
        (["adopt", "docs-lm"], "'adopt' has a command of its own: rewarm adopt PIPELINE FOLDER."),
        (["drop", "docs-lm"], "'drop' has a command of its own: rewarm dead-letters drop POSITION."),
    ],
)
def test_an_unknown_verb_or_pipeline_brings_the_known_ones(rewarm: "Command", arguments: list[str], told: str) -> None:
    """A typing error is answered by what there is."""
    code, _, err = rewarm("request", *arguments)

    assert code == 2
    assert told in err


def test_every_verb_can_be_asked_for() -> None:
    """Each verb that a person may use is told of by `request`, or by the name of its own command."""
    assert sorted([*MEANINGS, *ELSEWHERE]) == sorted(get_args(Verb))
