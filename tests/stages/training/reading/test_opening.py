"""How an arrival is opened: what is announced comes first, and nobody exchanges the file meanwhile."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.core.plans import DataSettings
from stages.roots import Remote
from stages.run_folder import Arrival
from stages.training.reading import Unusable, documents, open_arrival

ArrivalOf = Callable[..., Arrival]
LINES = b'{"text": "one"}\n{"text": "two"}\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of two documents."""
    path = tmp_path / "inbox" / "a.jsonl"
    path.parent.mkdir()
    path.write_bytes(LINES)
    return path


def read(arrival: Arrival, root: Path, act: Callable[[], object] = lambda: None) -> list[bytes]:
    """Return an arrival's texts; between hashing and parsing something happens."""
    with open_arrival(arrival, (str(root),), root / "staging", lambda: None) as source:
        act()
        return [document.text for document in documents(source, arrival.format, DataSettings())]


def open_files() -> set[str]:
    """Return what this process has open."""
    links = (entry for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink())
    return {str(entry.readlink()) for entry in links}


def test_a_source_knows_its_bytes(file: Path, arrival_of: ArrivalOf, tmp_path: Path) -> None:
    """Hash and size are the file's; the heart beats while it is hashed; nothing stays open."""
    beats: list[int] = []
    before = open_files()
    arrival = arrival_of(file, bytes=len(LINES), sha256=hashlib.sha256(LINES).hexdigest())
    with open_arrival(arrival, (str(tmp_path),), tmp_path / "staging", lambda: beats.append(1)) as source:
        assert (source.sha256, source.bytes) == (arrival.sha256, len(LINES))
        assert source.path.read_bytes() == LINES
    assert beats
    assert open_files() == before
    assert not (tmp_path / "staging").exists()


def test_what_is_parsed_is_what_was_hashed(file: Path, arrival_of: ArrivalOf) -> None:
    """Another file under the name, or the name gone, changes nothing: the file that was hashed is parsed."""
    other = file.with_name("b.jsonl")
    other.write_bytes(b'{"text": "forged"}\n')
    assert read(arrival_of(file), file.parent, lambda: other.replace(file)) == [b"one", b"two"]
    assert read(arrival_of(file), file.parent, file.unlink) == [b"forged"]


@pytest.mark.parametrize("content", [LINES + b'{"text": "three"}\n', LINES.replace(b"one", b"eno")])
def test_a_file_that_is_written_meanwhile_is_refused(file: Path, arrival_of: ArrivalOf, content: bytes) -> None:
    """What was appended or written over after hashing is found before the last document counts."""

    def change() -> None:
        before = file.stat()
        file.write_bytes(content)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))

    with pytest.raises(Unusable, match="changed while it was read") as caught:
        read(arrival_of(file), file.parent, change)
    assert caught.value.reason == "checksum"


def test_what_was_announced_is_checked_before_anything_is_parsed(file: Path, arrival_of: ArrivalOf) -> None:
    """The block is not entered for a file of another size or hash."""

    def never() -> None:
        pytest.fail("it was opened")

    wrong: list[tuple[dict[str, object], str]] = [
        ({"bytes": 1000}, "truncated"),
        ({"bytes": 3}, "checksum"),
        ({"sha256": "0" * 64}, "checksum"),
    ]
    for announced, reason in wrong:
        with pytest.raises(Unusable) as caught:
            read(arrival_of(file, **announced), file.parent, never)
        assert caught.value.reason == reason


def test_urls_need_a_root_elsewhere(file: Path, arrival_of: ArrivalOf) -> None:
    """A url below no root is refused without anybody being asked; folders open none."""
    roots = (str(file.parent), Remote(url="s3://bucket/in"))
    for url in ("s3://other/a", "s3://bucket/in/../a", "https://bucket/in/a", "s3://bucket/into/a"):
        with (
            pytest.raises(Unusable, match="none of the roots") as caught,
            open_arrival(arrival_of(url), roots, file.parent, lambda: None),
        ):
            pytest.fail("it was opened")
        assert caught.value.reason == "outside_roots"
