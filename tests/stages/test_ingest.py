"""Ingest: what is counted, dropped, cut, found again and refused."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from daemon.core.events import AnyEvent, DataIngested, DataRejected, StageFailed, StageSucceeded
from daemon.core.plans import DataSettings, ModelSettings, Plan, TokenizerSettings
from stages.execute import execute
from stages.run_folder import Arrival, Shard
from stages.training.data.encoding import BYTES
from stages.training.data.output import Output
from stages.training.data.shards import Part, read_manifest

Run = Callable[..., list[AnyEvent]]
Arrive = Callable[..., Arrival]
Documents = Callable[..., list[str]]


def ingested(events: list[AnyEvent]) -> list[DataIngested]:
    """Return what was ingested."""
    return [event for event in events if isinstance(event, DataIngested)]


def rejected(events: list[AnyEvent]) -> list[DataRejected]:
    """Return what was rejected."""
    return [event for event in events if isinstance(event, DataRejected)]


def text_of(part: Part) -> list[str]:
    """Return a part's documents as text."""
    return [bytes(part.document(at)[:-1].astype(np.uint8)).decode() for at in range(len(part))]


def test_documents_survive_tokenising(state: Path, run_stage: Run, arrive: Arrive) -> None:
    """Every document is in exactly one part, byte for byte, and ends with the end token."""
    texts = [f"größe {number} €" for number in range(100)]
    (event,) = ingested(run_stage("ingest", arrivals=(arrive("a", texts),)))

    train, held_out = (Part(state / event.manifest, part) for part in ("train", "held_out"))

    assert sorted(texts) == sorted(text_of(train) + text_of(held_out))
    assert train.document(0)[-1] == BYTES.end
    assert 1 <= len(held_out) <= 15
    assert event.amount.tokens == len(train.tokens)
    assert event.amount.documents == 100
    assert event.amount.bytes == sum(len(text.encode()) for text in texts)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_few_documents_are_in_both_parts(state: Path, run_stage: Run, arrive: Arrive, count: int) -> None:
    """With two documents or more there is something to train on and something to measure."""
    for seed in range(5):
        texts = [f"document {seed} {number}" for number in range(count)]
        (event,) = ingested(run_stage("ingest", seed + 1, arrivals=(arrive(f"a{seed}", texts),)))
        manifest = read_manifest(state / event.manifest)

        assert manifest.train_documents >= 1
        assert manifest.held_out_documents >= 1


def test_text_files_are_split_at_form_feeds(run_stage: Run, arrive: Arrive, tmp_path: Path) -> None:
    """A file of format text holds documents parted by a form feed on its own line."""
    path = tmp_path / "a.txt"
    path.write_text("one\n\n\f\ntwo\n\n\f\n \n\n\f\nthree")
    arrival = Arrival(
        position=3,
        path=str(path),
        format="text",
        domain="prose",
        bytes=path.stat().st_size,
        tokens=1,
        documents=1,
    )
    (event,) = ingested(run_stage("ingest", arrivals=(arrival,)))

    assert event.amount.documents == 3
    assert event.arrival == 3


def test_duplicates_are_dropped(state: Path, run_stage: Run, arrive: Arrive) -> None:
    """A document counts once: in its arrival, among the arrivals of a run, and against the past."""
    first = arrive("a", ["one", "two", "two", "three"], position=1)
    second = arrive("b", ["three", "four", "five"], position=2)
    events = ingested(run_stage("ingest", arrivals=(first, second)))

    assert [event.duplicates for event in events] == [1, 1]
    assert [event.amount.documents for event in events] == [3, 2]

    past = tuple(Shard(position=e.arrival, domain=e.domain, manifest=e.manifest) for e in events)
    third = arrive("c", ["one", "five", "six", "seven"], position=3)
    (event,) = ingested(run_stage("ingest", 2, arrivals=(third,), past=past))

    assert event.duplicates == 2
    assert set(text_of(Part(state / event.manifest, "train"))) < {"six", "seven"}


def test_the_same_file_is_tokenised_once(state: Path, run_stage: Run, arrive: Arrive) -> None:
    """A second attempt finds the shard of the first, unless a file of it is damaged."""
    arrival = arrive("a", ["one", "two", "three"])
    (first,) = ingested(run_stage("ingest", 1, arrivals=(arrival,)))
    inode = (state / first.manifest).stat().st_ino
    (second,) = ingested(run_stage("ingest", 2, arrivals=(arrival,)))

    assert (second.manifest, second.sha256) == (first.manifest, first.sha256)
    assert (state / second.manifest).stat().st_ino == inode

    (state / first.manifest).with_name("train.bin").write_bytes(b"")
    (third,) = ingested(run_stage("ingest", 3, arrivals=(arrival,)))

    assert third.sha256 == first.sha256
    assert len(Part(state / third.manifest, "train")) == 2


def jsonl(*texts: str) -> bytes:
    """Return documents as JSONL."""
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


@pytest.mark.parametrize(
    ("data", "announced", "reason"),
    [
        pytest.param(b"", {}, "empty", id="empty file"),
        pytest.param(jsonl("a", "b"), {"bytes": 1000}, "truncated", id="shorter than announced"),
        pytest.param(jsonl("a", "b"), {"bytes": 3}, "checksum", id="longer than announced"),
        pytest.param(jsonl("a", "b"), {"sha256": "0" * 64}, "checksum", id="another sha256"),
        pytest.param(b'{"text": "\xff"}\n', {}, "not_utf8", id="not UTF-8"),
        pytest.param(b'{"text": "\\ud800"}\n', {}, "malformed", id="half a surrogate pair"),
        pytest.param(jsonl("a") + b'{"text": "b', {}, "malformed", id="torn last line"),
        pytest.param(b'{"title": "a"}\n', {}, "malformed", id="no text field"),
        pytest.param(b'{"text": 1}\n', {}, "malformed", id="text is a number"),
        pytest.param(b"[" * 100_000, {}, "malformed", id="nested without end"),
        pytest.param(b'\n{"text": " "}\n', {}, "no_documents", id="blank documents"),
        pytest.param(b"\xff", {"format": "text"}, "not_utf8", id="text that is not UTF-8"),
        pytest.param(b"\n\n\f\n", {"format": "text"}, "no_documents", id="separators only"),
    ],
)
def test_bad_files_are_rejected(
    run_stage: Run, arrive: Arrive, data: bytes, announced: dict[str, object], reason: str
) -> None:
    """A file that cannot be used is told with its reason, and the others are used."""
    good, bad = arrive("good", ["one", "two"], position=1), arrive("bad", ["x"], position=2)
    Path(bad.path).write_bytes(data)
    bad = msgspec.structs.replace(bad, **{"bytes": len(data), **announced})
    events = run_stage("ingest", arrivals=(bad, good))

    (refusal,) = rejected(events)
    assert (refusal.arrival, refusal.reason) == (2, reason)
    assert bad.path in refusal.message
    assert len(ingested(events)) == 1
    assert isinstance(events[-1], StageSucceeded)


def test_odd_paths_are_rejected(run_stage: Run, arrive: Arrive, tmp_path: Path) -> None:
    """What vanished, leads out of the roots, or is no regular file is never read."""
    good = arrive("good", ["one", "two"])
    inbox = Path(good.path).parent
    (tmp_path / "secret.jsonl").write_bytes(jsonl("secret"))
    (inbox / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    os.mkfifo(inbox / "pipe.jsonl")
    names = {
        "gone.jsonl": "vanished",
        "good.jsonl/inside": "vanished",
        "link.jsonl": "outside_roots",
        "../secret.jsonl": "outside_roots",
        "pipe.jsonl": "unreadable",
        ".": "unreadable",
        "a\0b": "unreadable",
        "x" * 300: "unreadable",
    }
    odd = [msgspec.structs.replace(good, path=f"{inbox}/{name}") for name in names]
    events = run_stage("ingest", arrivals=(*odd, good), roots=(str(inbox),))

    assert [event.reason for event in rejected(events)] == list(names.values())
    assert len(ingested(events)) == 1


def test_one_token_is_too_short(run_stage: Run, arrive: Arrive) -> None:
    """Of a single token nothing can be learned; of two, something."""
    arrivals = (arrive("a", ["x"], position=1), arrive("b", ["xy"], position=2))
    events = run_stage("ingest", arrivals=arrivals)

    assert [(event.arrival, event.reason) for event in rejected(events)] == [(1, "too_short")]
    assert [event.arrival for event in ingested(events)] == [2]


def test_near_duplicates_are_told_and_kept(run_stage: Run, arrive: Arrive, make_documents: Documents) -> None:
    """They are counted among the past, the arrivals of the run and the arrival itself, and no document goes."""
    old, new = make_documents("prose", 20, 1), make_documents("code", 20, 2)
    first = arrive("a", old, position=1)
    second = arrive("b", [*new, *(f"{text}!" for text in (*old[:5], *new[:3]))], position=2)
    events = run_stage("ingest", arrivals=(first, second))

    assert [event.near_duplicates for event in ingested(events)] == [0, 8]
    assert [event.amount.documents for event in ingested(events)] == [20, 28]
    (succeeded,) = [event for event in events if isinstance(event, StageSucceeded)]
    assert succeeded.metrics["near_duplicates"] == 8.0

    past = (Shard(position=1, domain="prose", manifest=ingested(events)[0].manifest),)
    (again,) = ingested(run_stage("ingest", 2, arrivals=(second,), past=past))
    assert (again.near_duplicates, again.manifest) == (8, ingested(events)[1].manifest)


def test_groups_and_settings_of_the_data_are_heeded(
    state: Path, run_stage: Run, arrive: Arrive, make_base_plan: Callable[..., Plan]
) -> None:
    """Text and group lie in the fields that the configuration names, and its share is held out."""
    arrival = arrive("a", [])
    rows = [{"body": f"document {number} of someone", "author": number % 10} for number in range(200)]
    Path(arrival.path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    arrival = msgspec.structs.replace(arrival, bytes=0)
    data = DataSettings(text="body", group="author", held_out=0.4)
    plan = msgspec.structs.replace(make_base_plan(), data=data)
    (event,) = ingested(run_stage("ingest", arrivals=(arrival,), plan=plan))

    train, held_out = (
        {int(text.split()[1]) % 10 for text in text_of(Part(state / event.manifest, part))}
        for part in ("train", "held_out")
    )
    assert sorted(train | held_out) == list(range(10))
    assert not train & held_out
    assert 2 <= len(held_out) <= 6


def test_records_of_a_module_are_examples(
    state: Path, run_stage: Run, arrive: Arrive, make_base_plan: Callable[..., Plan]
) -> None:
    """Rows are kept whole and counted as what is trained on; no tokenizer is asked for."""
    arrival = arrive("a", [])
    rows = [{"x": [number, 0], "y": 1} for number in range(50)]
    Path(arrival.path).write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    plan = msgspec.structs.replace(make_base_plan(), model=ModelSettings(kind="module", factory="a:b"))
    (event,) = ingested(run_stage("ingest", arrivals=(msgspec.structs.replace(arrival, bytes=0),), plan=plan))

    train = Part(state / event.manifest, "train")
    assert json.loads(bytes(train.document(0))) in rows
    assert event.amount.tokens == len(train) < event.amount.documents == 50
    assert (event.duplicates, event.near_duplicates) == (1, 0)
    assert not (state / "tokenizers").exists()


def test_what_is_stopped_in_the_middle_leaves_nothing(
    state: Path, place: Callable[..., Path], arrive: Arrive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked to stop while it tokenises, the stage leaves neither a shard nor a part of one."""
    arrival = arrive("a", [f"document number {number}" for number in range(100)])
    folder = place("ingest", arrivals=(arrival,))
    opened: list[str] = []
    first = Output.__init__

    def open_(self: Output, path: Path) -> None:
        opened.append(path.name)
        (folder / "stop").write_text("cancel")
        first(self, path)

    monkeypatch.setattr(Output, "__init__", open_)
    execute(folder)

    assert opened
    assert [path.name for path in (state / "shards").rglob("*") if path.is_file()] == []
    assert not list((state / "shards").rglob("*.tmp"))


def test_a_trained_tokenizer_stays(
    state: Path, run_stage: Run, arrive: Arrive, make_documents: Documents, make_base_plan: Callable[..., Plan]
) -> None:
    """The first run trains one; what arrives later becomes tokens of the same, and other settings are refused."""
    tokenizer = TokenizerSettings(kind="train", vocabulary=270)
    plan = msgspec.structs.replace(make_base_plan(), model=ModelSettings(preset="micro", tokenizer=tokenizer))
    first, later = arrive("a", make_documents("prose", 30)), arrive("b", make_documents("code", 30), position=2)
    (event,) = ingested(run_stage("ingest", arrivals=(first,), plan=plan))
    past = (Shard(position=1, domain="prose", manifest=event.manifest),)
    (after,) = ingested(run_stage("ingest", 2, arrivals=(later,), past=past, plan=plan))

    manifests = [read_manifest(state / each.manifest) for each in (event, after)]
    assert manifests[0].tokenizer == manifests[1].tokenizer
    assert (state / "tokenizers" / f"{manifests[0].tokenizer}.json").exists()
    assert event.amount.tokens < event.amount.bytes


def test_all_duplicates_and_all_rejected(run_stage: Run, arrive: Arrive) -> None:
    """The same content again is rejected as such; when nothing is left, the stage fails as bad_sample."""
    first, again = arrive("a", ["one", "two"], position=1), arrive("b", ["two", "one"], position=2)
    events = run_stage("ingest", 1, arrivals=(first, again))

    assert [event.reason for event in rejected(events)] == ["all_duplicates"]

    (event,) = ingested(events)
    past = (Shard(position=1, domain="prose", manifest=event.manifest),)
    failed = run_stage("ingest", 2, arrivals=(again,), past=past)[-1]

    assert isinstance(failed, StageFailed)
    assert failed.failure == "bad_sample"
