"""What a training document says: its size in the unit of its loss, and its text for a callable and back."""

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from stages.training.data.encoding import Encoded, Tokenizer, parse
from stages.training.data.shards import Tokens

Content = str | dict[str, object]
"""A document's text, or the record that is an example."""


class Texts:
    """Documents as a shard stores them, read; without a tokenizer they are records.

    What a tokenizer's normalizer took away from a text is gone from it: what is read is what the model reads.
    """

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._library = None if tokenizer is None or tokenizer.is_bytes else parse(tokenizer.json)

    def sizes(self, documents: Sequence[Tokens]) -> npt.NDArray[np.float64]:
        """Return what each document's loss is counted per: the bytes of its text, at least one; one of an example."""
        if self._tokenizer is None:
            return np.ones(len(documents))
        return np.maximum(1.0, self.text_bytes(documents))

    def text_bytes(self, documents: Sequence[Tokens]) -> npt.NDArray[np.float64]:
        """Return the bytes of each document's text."""
        if self._library is None:
            end = int(self._tokenizer is not None)
            return np.array([len(each) - end for each in documents], dtype=np.float64)
        texts = self._library.decode_batch([each[:-1].tolist() for each in documents], skip_special_tokens=False)
        return np.array([len(text.encode()) for text in texts], dtype=np.float64)

    def read(self, document: Tokens) -> Content:
        """Return a document as people write it."""
        if self._tokenizer is None:
            return msgspec.json.decode(document.tobytes(), type=dict[str, object])
        if self._library is None:
            return document[:-1].astype(np.uint8).tobytes().decode()
        return self._library.decode(document[:-1].tolist(), skip_special_tokens=False)

    def write(self, content: Content) -> tuple[bytes, Encoded]:
        """Return a document as ingest would have it, and its tokens without the end; raises what hinders it."""
        if self._tokenizer is None:
            raw = msgspec.json.encode(content)
            return raw, Encoded(np.frombuffer(raw, dtype=np.uint8), np.zeros(0, dtype=np.uint32))
        raw = str(content).encode()
        return raw, self._tokenizer.encode([raw])[0]
