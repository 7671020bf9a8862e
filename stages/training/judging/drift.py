"""How far new documents are from past ones, measured as distances: what a threshold or a rolling band can be put on.

A test's p-value falls with the number of documents whatever the distance (https://github.com/evidentlyai/evidently/issues/50),
so distances are told; `ks_p` is there for who wants the test. All are symmetric in the two sides and need no model but
the champion, whose losses they compare.

    ks           the Kolmogorov-Smirnov statistic of the documents' losses, 0 to 1
    ks_p         the p-value of that test
    wasserstein  the distance between the two distributions of losses, in the loss's own unit
    tokens       the Jensen-Shannon distance (base 2) between the two distributions of tokens, 0 to 1
    features     the share of the 64 most frequent tokens whose rate per document differs (KS test, 5 % in all)
"""

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stages.training.data.shards import Tokens

FEWEST = 8
"""Documents of a side below which a distance is mostly chance."""
FREQUENT = 64
LEVEL = 0.05
Floats = npt.NDArray[np.float64]


def of_losses(new: Floats, past: Floats) -> dict[str, float]:
    """Return the distances between two samples of document losses; nothing where one has too few."""
    if min(len(new), len(past)) < FEWEST:
        return {}
    from scipy.stats import ks_2samp, wasserstein_distance  # its import starts a thread: after the fork

    tested = ks_2samp(new, past, method="asymp")
    return {
        "ks": _figure(tested.statistic),
        "ks_p": _figure(tested.pvalue),
        "wasserstein": _figure(wasserstein_distance(new, past)),
    }


def of_tokens(new: Sequence[Tokens], past: Sequence[Tokens]) -> dict[str, float]:
    """Return the distances between what two samples of documents are made of; nothing where one has too few."""
    if min(len(new), len(past)) < FEWEST:
        return {}
    from scipy.spatial.distance import jensenshannon
    from scipy.stats import ks_2samp

    size = 1 + max(int(document.max()) for document in (*new, *past) if len(document))
    totals = [np.bincount(np.concatenate(side), minlength=size) for side in (new, past)]
    frequent = np.argsort(-(totals[0] + totals[1]), kind="stable")[:FREQUENT]
    rates = [
        np.stack([np.bincount(document, minlength=size)[frequent] / max(1, len(document)) for document in side])
        for side in (new, past)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a token at one rate in all documents: no difference
        values = [ks_2samp(a, b, method="asymp").pvalue for a, b in zip(rates[0].T, rates[1].T, strict=True)]
    differing = sum(1 for value in values if value < LEVEL / len(frequent))  # Bonferroni
    return {
        "tokens": _figure(jensenshannon(totals[0], totals[1], base=2)),
        "features": _figure(differing / len(frequent)),
    }


def _figure(value: float) -> float:
    return round(float(value), 9)
