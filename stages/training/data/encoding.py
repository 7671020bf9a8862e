"""Text as tokens: by its bytes, or as a Hugging Face tokenizer.json says.

No document holds the end token: text that looks like it is encoded as the text that it is.
"""

import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from daemon.core.errors import StageError

if TYPE_CHECKING:
    import tokenizers

END_OF_TEXT = "<|endoftext|>"
PIECE_CHARACTERS = 1 << 16
BATCH_CHARACTERS = 1 << 20
CUT = re.compile(r"(?<=\S) (?=[A-Za-z])")
"""Where every byte-level tokenizer that splits into words begins a new one."""
SAVE = "name a tokenizer.json as the library `tokenizers` saves it (with transformers: save_pretrained(folder))."
Numbers = npt.NDArray[np.unsignedinteger]


class Encoded(msgspec.Struct, frozen=True):
    """A document's tokens (uint16 or uint32, the end token not among them) and the byte offset after each (uint32)."""

    tokens: Numbers
    ends: npt.NDArray[np.uint32]


class Tokenizer:
    """The tokenizer of a tokenizer.json; `end` is the id of the token that ends a document.

    The library is loaded with the first document, and uses as many threads as RAYON_NUM_THREADS says.
    """

    def __init__(self, json: bytes, *, vocabulary: int, end: int) -> None:
        self.json = json
        self.sha256 = hashlib.sha256(json).hexdigest()
        self.vocabulary = vocabulary
        self.end = end

    def __repr__(self) -> str:
        return f"Tokenizer({self.sha256[:12]}, vocabulary={self.vocabulary}, end={self.end})"

    @property
    def is_bytes(self) -> bool:
        """Whether a document's tokens are its bytes."""
        return self.sha256 == BYTES.sha256

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """How its tokens are stored: uint16 while they fit."""
        return np.dtype("<u2") if self.vocabulary <= 1 << 16 else np.dtype("<u4")

    def encode(self, documents: Sequence[bytes]) -> list[Encoded]:
        """Return the tokens of documents in UTF-8; give it many at once, but no more than shall be in memory."""
        return [self._joined(pieces) for pieces in self._encoded(documents)]

    @functools.cached_property
    def _library(self) -> "tokenizers.Tokenizer":
        found = parse(self.json)
        found.no_truncation()
        found.no_padding()
        found.encode_special_tokens = True
        return found

    @functools.cached_property
    def _sizes(self) -> npt.NDArray[np.int64] | None:
        """The bytes of each token where a token always is the same bytes, which are the text's own; else None."""
        described = msgspec.json.decode(self.json)
        if described.get("normalizer") is not None or not _is_byte_level(described.get("pre_tokenizer")):
            return None
        sizes = np.zeros(self.vocabulary, dtype=np.int64)
        for token, number in self._library.get_vocab(with_added_tokens=False).items():
            sizes[number] = len(token)
        for number, added in self._library.get_added_tokens_decoder().items():
            sizes[number] = len(added.content.encode())
        return sizes

    def _encoded(self, documents: Sequence[bytes]) -> Iterator[list[Encoded]]:
        """Yield each document's pieces, which are encoded in batches of a bounded size."""
        encoded = self._batched(piece for document in documents for piece in self._cut(document))
        for document in documents:
            yield [next(encoded) for _ in self._cut(document)]

    def _cut(self, document: bytes) -> list[str]:
        return _pieces(document.decode()) if self._sizes is not None else [document.decode()]

    def _batched(self, pieces: Iterable[str]) -> Iterator[Encoded]:
        waiting: list[str] = []
        size = 0
        for piece in pieces:
            waiting.append(piece)
            size += len(piece)
            if size >= BATCH_CHARACTERS:
                yield from self._pieces_encoded(waiting)
                waiting, size = [], 0
        yield from self._pieces_encoded(waiting)

    def _pieces_encoded(self, texts: list[str]) -> Iterator[Encoded]:
        sizes = self._sizes
        encode = self._library.encode_batch if sizes is None else self._library.encode_batch_fast
        for text, found in zip(texts, encode(texts, add_special_tokens=False), strict=True):
            tokens = np.array(found.ids, dtype=self.dtype)
            length = len(text.encode())
            ends = _counted(text, found.offsets) if sizes is None else np.cumsum(sizes[tokens])
            if sizes is not None and len(ends) and ends[-1] != length:
                # An added token that strips the blanks around it: only the library knows which bytes it took.
                ends = _counted(text, self._library.encode(text, add_special_tokens=False).offsets)
            if len(ends):
                ends[-1] = length
            yield Encoded(tokens, ends.astype(np.uint32))

    def _joined(self, pieces: Sequence[Encoded]) -> Encoded:
        if len(pieces) == 1:
            return pieces[0]
        lengths = np.cumsum([0, *(int(piece.ends[-1]) if len(piece.ends) else 0 for piece in pieces)])
        ends = [piece.ends + np.uint32(before) for piece, before in zip(pieces, lengths, strict=False)]
        return Encoded(np.concatenate([piece.tokens for piece in pieces]), np.concatenate(ends))


class _Bytes(Tokenizer):
    def encode(self, documents: Sequence[bytes]) -> list[Encoded]:
        """Return the bytes of each document."""
        return [
            Encoded(
                np.frombuffer(document, dtype=np.uint8).astype(self.dtype), np.arange(1, len(document) + 1, dtype="u4")
            )
            for document in documents
        ]


def _alphabet() -> dict[str, int]:
    """Return the character by which byte-level tokenizers write each byte (Radford et al. 2019, GPT-2's encoder)."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + at): byte for at, byte in enumerate(others)}


def _bytes_json() -> bytes:
    """Return the tokenizer.json without merges whose ids are the bytes, and then the end token."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    end = {"id": 256, "content": END_OF_TEXT, "special": True}
    end |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    nothing = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")
    model: dict[str, object] = {"type": "BPE", **dict.fromkeys(nothing)}
    model |= dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), False)
    model |= {"vocab": dict(sorted(_alphabet().items(), key=lambda each: each[1])), "merges": []}
    whole: dict[str, object] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [end],
        "normalizer": None,
    }
    whole |= {"pre_tokenizer": level, "post_processor": None, "decoder": level, "model": model}
    return msgspec.json.format(msgspec.json.encode(whole))


BYTES: Tokenizer = _Bytes(_bytes_json(), vocabulary=257, end=256)
"""The default: a document's tokens are its bytes 0..255, and 256 ends it."""


def parse(json: bytes, named: str = "of the shards") -> "tokenizers.Tokenizer":
    """Return the library's tokenizer of a tokenizer.json; raises StageError (user_error)."""
    import tokenizers

    try:
        return tokenizers.Tokenizer.from_buffer(json)
    except Exception as error:
        message = f"The tokenizer {named} cannot be used ({error}): {SAVE}"
        raise StageError("user_error", message) from error


def _is_byte_level(pre_tokenizer: object) -> bool:
    if not isinstance(pre_tokenizer, dict):
        return False
    if pre_tokenizer.get("type") == "Sequence":
        steps = pre_tokenizer.get("pretokenizers") or []
        return any(map(_is_byte_level, steps)) and all(
            each.get("type") in {"ByteLevel", "Split", "Digits"} and each.get("behavior") != "Removed" for each in steps
        )
    return pre_tokenizer.get("type") == "ByteLevel" and not pre_tokenizer.get("add_prefix_space")


def _pieces(text: str) -> list[str]:
    """Return a long text in pieces that become the same tokens as the whole; what one costs is many times its size."""
    if len(text) <= 2 * PIECE_CHARACTERS:
        return [text]
    cuts = [0]
    while (found := CUT.search(text, cuts[-1] + PIECE_CHARACTERS)) is not None:
        cuts.append(found.start())
    return [text[start:stop] for start, stop in zip(cuts, [*cuts[1:], len(text)], strict=True)]


def _counted(text: str, offsets: Iterable[tuple[int, int]]) -> npt.NDArray[np.int64]:
    """Return the byte offset after each token from its offsets in characters; never falling."""
    after = np.array([stop for _, stop in offsets], dtype=np.int64)
    if not text.isascii():
        sizes = [len(character.encode()) for character in text]
        after = np.concatenate(([0], np.cumsum(sizes)))[after]
    return np.maximum.accumulate(after) if len(after) else after
