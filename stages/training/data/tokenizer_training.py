"""A tokenizer trained once, on a bounded sample of a pipeline's first arrivals; the same ones give the same bytes."""

from collections.abc import Iterable, Iterator

from daemon.core.errors import StageError
from stages.base import Context
from stages.training.data.encoding import END_OF_TEXT, Tokenizer
from stages.training.data.identity import fingerprint
from stages.training.reading import Unusable, documents, open_arrival

SAMPLE_BYTES = 64 << 20
"""Beyond some tens of megabytes more text hardly changes the merges; counting these takes seconds."""


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Return a byte-level BPE tokenizer (Sennrich et al. 2016; on bytes as in GPT-2) of at most `vocabulary` tokens.

    Every byte is a token, so any text can be encoded; token 0 ends a document. Equally frequent pairs are merged in the
    order of their ids: the same texts give the same bytes, however many threads count them.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    json = library.to_str(pretty=True).encode()
    return Tokenizer(json, vocabulary=library.get_vocab_size(), end=0)


def train_on_arrivals(context: Context, vocabulary: int) -> Tokenizer:
    """Return a tokenizer trained on the run's arrivals; raises StageError (user_error) where there are none.

    Where none of them can be read every byte is a token, and nothing becomes tokens.
    """
    if not context.specification.arrivals:
        message = (
            "There is no arrival to train the tokenizer on: let data arrive first, or configure a tokenizer of kind "
            "`bytes` or `file`."
        )
        raise StageError("user_error", message)
    return train_tokenizer(_sample(context), vocabulary)


def _sample(context: Context) -> Iterator[str]:
    """Yield documents that their hashes choose, so many that they are about SAMPLE_BYTES, and no more than that."""
    specification = context.specification
    total = max(1, sum(arrival.bytes for arrival in specification.arrivals))
    below, left = SAMPLE_BYTES / total * 2**64, SAMPLE_BYTES
    for number, arrival in enumerate(specification.arrivals):

        def beat(done: int = number) -> None:
            context.beat(done, len(specification.arrivals))

        try:
            with open_arrival(arrival, specification.roots, context.folder, beat) as source:
                for document in documents(source, arrival.format, specification.plan.data):
                    beat()
                    # What is held out goes by the other half of the hash.
                    if left > 0 and int.from_bytes(fingerprint(document.text)[8:], "little") < below:
                        left -= len(document.text)
                        yield document.text.decode()
        except Unusable:
            continue  # ingest tells of it
