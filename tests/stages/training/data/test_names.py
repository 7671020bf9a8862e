"""A shard's name: what was read or made in another way lies elsewhere."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from daemon.core.errors import StageError
from daemon.core.events import AnyEvent, DataIngested
from stages.run_folder import Arrival
from stages.training.data.encoding import Tokenizer
from stages.training.data.manifests import read_manifest
from stages.training.data.seen import Seen
from stages.training.data.tokenizer_training import train_tokenizer
from stages.training.data.writing import Making, Named, write_shard
from stages.training.files import MANIFEST
from stages.training.reading import Document


def test_a_file_that_was_announced_wrongly_is_read_anew(
    state: Path, run_stage: Callable[..., list[AnyEvent]], arrive: Callable[..., Arrival]
) -> None:
    """Lines of JSON taken for text are no documents of the same file once it is announced as JSONL."""
    arrival = arrive("a", [f"text {number}" for number in range(3)])
    wrong = msgspec.structs.replace(arrival, format="text")

    def ingest(run: str, arrival: Arrival) -> DataIngested:
        (event,) = [e for e in run_stage("ingest", run=run, arrivals=(arrival,)) if isinstance(e, DataIngested)]
        return event

    before, after = ingest("p-1", wrong), ingest("p-2", arrival)

    assert (before.amount.documents, after.amount.documents) == (1, 3)
    assert after.amount.bytes == sum(len(f"text {number}") for number in range(3))
    assert read_manifest(state / before.manifest).train_documents == 1
    assert ingest("p-3", wrong).manifest == before.manifest


def test_one_tokenizer_with_two_ends_makes_two_shards(tmp_path: Path) -> None:
    """A base model and its chat version may have the same tokenizer.json, and end documents otherwise."""
    first = train_tokenizer(["a few words, and a few more"], 260)
    second = Tokenizer(first.json, vocabulary=first.vocabulary, end=first.end + 1)

    def end(tokenizer: Tokenizer) -> int:
        folder = write_shard(
            tmp_path / "shards",
            Named(source_sha256="0" * 64, domain="a"),
            documents=lambda: [Document(text=b"one"), Document(text=b"two")],
            seen=Seen(tmp_path, ()),
            making=Making(tokenizer=tokenizer),
        )
        assert folder is not None
        return read_manifest(folder / MANIFEST).end

    assert (end(first), end(second)) == (first.end, second.end)


def test_a_past_shard_that_is_not_whole_is_named(tmp_path: Path) -> None:
    """What is missing of it is a damaged sample, which the message names, not a user's mistake."""
    folder = write_shard(
        tmp_path / "shards",
        Named(source_sha256="0" * 64, domain="a"),
        documents=lambda: [Document(text=b"one"), Document(text=b"two")],
        seen=Seen(tmp_path, ()),
    )
    assert folder is not None
    (folder / "bands.bin").unlink()

    with pytest.raises(StageError, match="not whole") as caught:
        Seen(tmp_path, [folder / MANIFEST])
    assert caught.value.failure == "bad_sample"
