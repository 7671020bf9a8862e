"""Which tokenizer a pipeline has: one for ever, that of its shards and its champion; kept by its content.

Each lies below `<state>/tokenizers` under its sha256.
"""

import hashlib
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from daemon.core.errors import StageError
from daemon.core.plans import TokenizerSettings
from daemon.files import write_atomically
from stages.base import Context
from stages.run_folder import Shard
from stages.training.data.encoding import BYTES, END_OF_TEXT, SAVE, Encoded, Tokenizer, parse
from stages.training.data.manifests import read_manifest

if TYPE_CHECKING:
    import tokenizers

__all__ = ["BYTES", "Encoded", "Tokenizer", "keep", "kept", "read_tokenizer", "tokenizer_of"]

FOLDER = "tokenizers"
TOKENIZER = "tokenizer.json"
END_NAMES = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "<|im_end|>", "<|eot_id|>", "[SEP]")
"""Names of the end token in tokenizers that come without any other word on it, the likeliest first."""
logger = logging.getLogger("rewarm.stage")


def tokenizer_of(context: Context) -> Tokenizer:
    """Return the tokenizer of the run's pipeline, kept below the state folder.

    That is the one of the specification's shards; else the champion's; else what the configuration says. Raises
    StageError: user_error when they contradict each other or the configured one cannot be used, bad_sample when the
    one of the shards is gone.
    """
    specification = context.specification
    state = Path(specification.state)
    _set_threads(specification.threads)
    settings, folder = specification.plan.model.tokenizer, specification.plan.model.path
    configured = TokenizerSettings(kind="file", path=f"{folder}/{TOKENIZER}") if folder else settings
    found = _of_shards(state, (*specification.past, *specification.new))
    champion = _of_champion(context)
    if found is not None and champion is not None and found.sha256 != champion.sha256:
        message = (
            f"The tokenizer changed between arrivals: the shards were made with {found.sha256[:12]}, and the champion "
            f"(version {specification.champion and specification.champion.version}) reads {champion.sha256[:12]}. "
            "Roll back to a champion of the shards' tokenizer, or make another pipeline for this one."
        )
        raise StageError("user_error", message)
    found = found or champion
    if found is None:
        found = _configured(context, configured)
    elif champion is not None:
        _agree(configured, found)
    keep(state, found)
    return found


def _set_threads(threads: int) -> None:
    # The library's threads do not survive a fork: with one thread it starts none.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false" if threads == 1 else "true")
    if threads:
        os.environ.setdefault("RAYON_NUM_THREADS", str(threads))


def _of_shards(state: Path, shards: Iterable[Shard]) -> Tokenizer | None:
    """Return the tokenizer that all shards name; None where there is no shard of text."""
    first: tuple[Shard, str, int] | None = None
    for shard in shards:
        manifest = read_manifest(state / shard.manifest)
        if manifest.tokenizer is None:
            continue
        if first is None:
            first = (shard, manifest.tokenizer, manifest.end)
        elif first[1] != manifest.tokenizer:
            message = (
                f"The tokenizer changed between arrivals: arrival {first[0].position} was made into tokens by "
                f"{first[1][:12]} and arrival {shard.position} by {manifest.tokenizer[:12]}. A pipeline keeps its "
                f"tokenizer for ever: withdraw one of the two, or make another pipeline for the other tokenizer."
            )
            raise StageError("user_error", message)
    return None if first is None else kept(state, first[1], first[2])


def _of_champion(context: Context) -> Tokenizer | None:
    champion = context.specification.champion
    if champion is None:
        return None
    path = context.resolve(champion.model.path) / TOKENIZER
    return read_tokenizer(path) if path.is_file() else None


def _configured(context: Context, settings: TokenizerSettings) -> Tokenizer:
    if settings.kind == "bytes":
        return BYTES
    if settings.kind == "file":
        return read_tokenizer(Path(settings.path or ""))
    from stages.training.data.tokenizer_training import train_on_arrivals

    return train_on_arrivals(context, settings.vocabulary or 0)


def _agree(settings: TokenizerSettings, found: Tokenizer) -> None:
    """Raise StageError (user_error) where the configuration asks for another tokenizer than the champion's."""
    if settings.kind == "file":
        try:
            wanted = Path(settings.path or "").read_bytes()
            same = wanted == found.json or msgspec.json.decode(wanted) == msgspec.json.decode(found.json)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            # The champion brings its own: the file is not needed any more.
            extra = {"path": settings.path, "error": str(error)}
            logger.warning("The configured tokenizer cannot be read; the champion's is used.", extra=extra)
            return
    elif settings.kind == "train":
        same = not found.is_bytes and found.vocabulary <= (settings.vocabulary or 0)
    else:
        same = found.is_bytes
    if not same:
        kept = "bytes" if found.is_bytes else f"{found.vocabulary:,} tokens, sha256 {found.sha256[:12]}"
        message = (
            f"The configured tokenizer (kind {settings.kind}) is another than the champion's ({kept}), which the "
            "pipeline keeps for ever: set `tokenizer` back to that, or make another pipeline for the new one."
        )
        raise StageError("user_error", message)


def read_tokenizer(path: Path, end: int | None = None) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json; its end token is `end`, or what the files beside it say.

    Those are config.json (`eos_token_id`) and tokenizer_config.json (`eos_token`); failing them, the special token with
    one of END_NAMES. The file that rewarm 0.1.0 wrote for bytes counts as BYTES. Raises StageError (user_error).
    """
    try:
        json = path.read_bytes()
        described = msgspec.json.decode(json)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StageError("user_error", f"The tokenizer {path} cannot be read ({error}): {SAVE}") from error
    if json == BYTES.json or (isinstance(described, dict) and described.get("kind") == "bytes"):
        return BYTES
    library = parse(json, str(path))
    if end is None:
        end = _end(path, library)
    vocabulary = 1 + max(library.get_vocab(with_added_tokens=True).values(), default=-1)
    if not 0 <= end < vocabulary:
        message = f"The tokenizer {path} has {vocabulary} tokens, and its end token is said to be {end}: correct it."
        raise StageError("user_error", message)
    return Tokenizer(json, vocabulary=vocabulary, end=end)


def _end(path: Path, library: "tokenizers.Tokenizer") -> int:
    told = _beside(path, "config.json").get("eos_token_id")
    if isinstance(told, list):
        told = told[0] if told else None
    if isinstance(told, int):
        return told
    named = _beside(path, "tokenizer_config.json").get("eos_token")
    if isinstance(named, dict):
        named = named.get("content")
    for name in (named, *END_NAMES):
        if isinstance(name, str) and (number := library.token_to_id(name)) is not None:
            return number
    message = (
        f"Which token ends a document is not told by the tokenizer {path}: write eos_token into a "
        f"tokenizer_config.json beside it, or eos_token_id into a config.json (known by name: {', '.join(END_NAMES)})."
    )
    raise StageError("user_error", message)


def _beside(path: Path, name: str) -> dict[str, object]:
    try:
        return msgspec.json.decode((path.parent / name).read_bytes(), type=dict[str, object])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def keep(state: Path, tokenizer: Tokenizer) -> Path:
    """Return where the tokenizer lies below the state folder, after putting it there if it is not."""
    path = state / FOLDER / f"{tokenizer.sha256}.json"
    if not _is_kept(path, tokenizer.sha256):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, tokenizer.json)
    return path


def _is_kept(path: Path, sha256: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    except OSError:
        return False


def kept(state: Path, sha256: str, end: int) -> Tokenizer:
    """Return a tokenizer that shards were made with; raises StageError (bad_sample) when it is not there as it was."""
    if sha256 == BYTES.sha256:
        return BYTES
    path = state / FOLDER / f"{sha256}.json"
    if _is_kept(path, sha256):
        return read_tokenizer(path, end)
    message = f"The tokenizer {path} of the shards is missing or damaged: restore it, or let them be ingested again."
    raise StageError("bad_sample", message)
