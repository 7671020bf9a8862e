"""What a shard's manifest tells; read by everybody who asks about a shard without reading its tokens."""

from pathlib import Path

import msgspec

from daemon.core.errors import StageError
from daemon.core.events.stages import Lengths
from stages.training.data.encoding import BYTES
from stages.training.files import Stamp, fits


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a shard holds; `text_bytes` counts the kept documents' text, `files` are sha256 and size.

    Format 1 (rewarm 0.1.0) ends with `files`; what came later has the values that were true of it. `tokenizer` is its
    sha256, None of records, whose documents are stored as their bytes; `end` is the token after each document. Of
    records `*_tokens` count the examples. `near_duplicates` are kept, None where nobody looked; `near_leaks` of them
    lie in another part than what they nearly are. `sketch` says how bands.bin was made.
    """

    format: int = 1
    source_sha256: str
    domain: str
    train_documents: int
    train_tokens: int
    held_out_documents: int
    held_out_tokens: int
    text_bytes: int
    duplicates: int
    files: dict[str, Stamp]
    near_duplicates: int | None = None
    near_leaks: int = 0
    groups: int = 0
    tokenizer: str | None = BYTES.sha256
    vocabulary: int = BYTES.vocabulary
    end: int = BYTES.end
    dtype: str = "<u2"
    sketch: str | None = None
    lengths: Lengths | None = None


def read_manifest(path: Path) -> Manifest:
    """Return a shard's manifest; raises StageError (bad_sample) when it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        message = f"The shard at {path} cannot be read ({error}): let its arrival be ingested again."
        raise StageError("bad_sample", message) from error


def check_whole(folder: Path, manifest: Manifest) -> None:
    """Raise StageError (bad_sample) unless a shard's files are there, of the size that its manifest says."""
    if not fits(folder, manifest.files, thorough=False):
        raise StageError("bad_sample", f"The shard at {folder} is not whole: let its arrival be ingested again.")
