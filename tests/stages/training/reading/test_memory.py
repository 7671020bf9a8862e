"""Memory does not grow with the file, and a bomb is none."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

SMALL = 1000
TIMES = 10
READER = """
import resource, sys
from pathlib import Path
from daemon.core.plans import DataSettings
from stages.training.reading import Source, Unusable, documents

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

for path in map(Path, sys.argv[1:]):
    form = {".txt": "text", ".parquet": "parquet"}.get(path.suffix, "jsonl")
    source = Source(path=path, sha256="", bytes=path.stat().st_size)
    before = peak()
    try:
        found = sum(len(document.text) for document in documents(source, form, DataSettings()))
    except Unusable as error:
        found = error.reason
    print(found, peak() - before)
"""


def write(folder: Path, times: int) -> list[Path]:
    """Write the same documents so many times, in every format and compression."""
    text = "a document of about two kilobytes, again and again; " * 40
    lines = b"".join(json.dumps({"text": f"{number} {text}"}).encode() + b"\n" for number in range(SMALL))
    names = ("a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.txt", "a.parquet")
    plain, zipped, packed, parts, table = (folder / f"{times}-{name}" for name in names)
    plain.write_bytes(lines * times)
    zipped.write_bytes(gzip.compress(lines, 1) * times)
    packed.write_bytes(zstandard.compress(lines, 1) * times)
    parts.write_bytes(lines.replace(b"\n", b"\n\n\f\n") * times)
    rows = pa.table({"text": [f"{number} {text}" for number in range(SMALL)], "other": [text] * SMALL})
    with pq.ParquetWriter(table, rows.schema, use_dictionary=False) as writer:
        writer.write_table(pa.concat_tables([rows] * times), row_group_size=1 << 30)  # one row group, as some write
    return [plain, zipped, packed, parts, table]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Ten times the file takes no more memory; a gigabyte of one line in 30 kB is refused within the bound."""
    small, large = write(tmp_path, 1), write(tmp_path, TIMES)
    bomb = tmp_path / "bomb.jsonl"
    packer = zstandard.ZstdCompressor().compressobj()
    block = bytes(1 << 24)
    bomb.write_bytes(b"".join(packer.compress(block) for _ in range(64)) + packer.flush())
    pairs = [path for both in zip(small, large, strict=True) for path in both]
    command = [sys.executable, "-c", READER, *map(str, (*pairs, bomb))]
    read = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path.cwd())
    *told, (refused, bombed) = [line.split() for line in read.stdout.splitlines()]
    assert [int(size) for size, _ in told[1::2]] == [int(size) * TIMES for size, _ in told[::2]]
    grown = {path.name: int(megabytes) for path, (_, megabytes) in zip(pairs, told, strict=True)}
    assert max(megabytes for name, megabytes in grown.items() if name.startswith(f"{TIMES}-")) <= 12, grown
    assert refused == "malformed"
    assert int(bombed) < 200
