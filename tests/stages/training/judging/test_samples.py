"""What is measured of what is held out: a bounded sample, of documents that there is something to measure of."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from daemon.core.events import AnyEvent, ProbeMeasured, StageFailed
from daemon.core.plans import Plan
from stages.run_folder import Champion, Shard
from stages.training.data.identity import HASH_BYTES
from stages.training.data.manifests import Manifest
from stages.training.data.shards import Part
from stages.training.data.statistics import Statistics
from stages.training.files import MANIFEST, stamp
from stages.training.judging.evaluation import Budget, choose

DOCUMENTS = 150_000
MOST = 8 << 20


@pytest.fixture
def hold_out(tmp_path: Path) -> Callable[..., Path]:
    """Write a shard of bytes of which everything is held out: (tokens, offsets, hashes) → manifest."""

    def make(tokens: np.ndarray, offsets: np.ndarray, hashes: bytes) -> Path:
        folder = tmp_path / "shard"
        folder.mkdir()
        (folder / "train.bin").write_bytes(b"")
        (folder / "train.offsets").write_bytes(bytes(8))
        (folder / "held_out.bin").write_bytes(tokens.astype("<u2").tobytes())
        (folder / "held_out.offsets").write_bytes(offsets.astype("<u8").tobytes())
        (folder / "hashes.bin").write_bytes(hashes)
        manifest = Manifest(
            source_sha256="0" * 64,
            domain="a",
            train_documents=0,
            train_tokens=0,
            held_out_documents=len(offsets) - 1,
            held_out_tokens=len(tokens),
            text_bytes=len(tokens) - len(offsets) + 1,
            duplicates=0,
            files={file.name: stamp(file) for file in folder.iterdir()},
        )
        (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))
        return folder / MANIFEST

    return make


def test_memory_does_not_grow_with_what_is_held_out(hold_out: Callable[..., Path]) -> None:
    """The least hashes are found a piece at a time, and they are the least of all."""
    hashes = np.random.default_rng(1).bytes(HASH_BYTES * DOCUMENTS)
    tokens = np.tile(np.array([65, 256]), DOCUMENTS)
    manifest = hold_out(tokens, np.arange(0, 2 * DOCUMENTS + 1, 2), hashes)
    names = sorted((hashes[at : at + HASH_BYTES], at // HASH_BYTES) for at in range(0, len(hashes), HASH_BYTES))
    tokens[[2 * number for _, number in names[:5]]] = range(5)
    part = Part(manifest, "held_out")
    part.tokens = tokens.astype("<u2")

    tracemalloc.start()
    excerpts = choose([part], Budget(documents=5, bytes=1000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert [int(each[1]) for each in excerpts.tokens] == list(range(5))
    assert peak < MOST


def test_documents_of_which_no_token_is_text_are_not_measured(
    run_stage: Callable[..., list[AnyEvent]],
    make_increment_plan: Callable[..., Plan],
    champion: Champion,
    past: tuple[Shard, ...],
    hold_out: Callable[..., Path],
) -> None:
    """A tokenizer may know nothing of a script: its domain is as one of which nothing is held out."""
    manifest = hold_out(np.array([256]), np.array([0, 1]), bytes(HASH_BYTES))
    unknown = Shard(position=9, domain="a", manifest=str(manifest))

    told = run_stage(
        "probe", run="p-9", plan=make_increment_plan(champion), champion=champion, past=past, new=(unknown,)
    )

    assert [event for event in told if isinstance(event, StageFailed)] == []
    (measured,) = [event for event in told if isinstance(event, ProbeMeasured)]
    assert (measured.new, measured.shift) == ({}, None)
    assert list(measured.past) == ["prose"]


def test_a_long_document_is_counted_in_pieces(tmp_path: Path) -> None:
    """What is counted of its bytes takes no more memory than the document."""
    statistics = Statistics(tmp_path)
    text = b"a1 \n" * (4 << 20)

    tracemalloc.start()
    statistics.add([text])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 2 * len(text)
    found = statistics.lengths()
    assert (found.longest, found.whitespace, found.digits, found.ascii) == (len(text), 0.5, 0.25, 1.0)
