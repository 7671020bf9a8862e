"""By what documents and groups are known again, and which of them are never trained on."""

import hashlib

import numpy as np
import numpy.typing as npt

HASH_BYTES = 16
SLICES = 20
WIDTH = 2**64 // SLICES
Keys = npt.NDArray[np.uint64]


def fingerprint(document: bytes) -> bytes:
    """Return the 16 bytes by which a document is known again."""
    return hashlib.blake2b(document, digest_size=HASH_BYTES).digest()


def group_key(group: str | None) -> int:
    """Return the even number by which a group is known again; 0: there is none."""
    if group is None:
        return 0
    digest = hashlib.blake2b(group.encode("utf-8", "surrogatepass"), digest_size=8, person=b"group").digest()
    return max(2, int.from_bytes(digest, "little") & ~1)


def is_below(keys: Keys, share: float) -> npt.NDArray[np.bool_]:
    """Return which hashes are among the given share of all hashes; a greater share holds all of a lesser one.

    A twentieth, the default and the only share that rewarm 0.1.0 knew, is each number that twenty divides.
    """
    below: npt.NDArray[np.bool_] = spread(keys) < np.uint64(round(share * SLICES * WIDTH))
    return below


def spread(keys: Keys) -> Keys:
    """Return the hashes as numbers in whose order they are held out: the least ones first."""
    order: Keys = (keys % np.uint64(SLICES)) * np.uint64(WIDTH) + keys // np.uint64(SLICES)
    return order
