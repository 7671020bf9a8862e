"""Cutting: whatever arrives in whatever order, nothing is kept twice and no group is in both parts."""

import random
from pathlib import Path

import numpy as np
import pytest

from stages.training.data.cutting import DROPPED, Documents, cut
from stages.training.data.identity import fingerprint, group_key
from stages.training.data.seen import HELD_OUT, TRAIN, Seen, document_keys
from stages.training.data.sketches import BANDS


def draw(generator: random.Random) -> tuple[list[int], Documents]:
    """Return numbers and the documents that they stand for: repeated, grouped and alike, each to a random degree."""
    count, groups = generator.choice([1, 2, 3, 5, 20, 200]), generator.choice([0, 1, 2, 50])
    alike, pool = generator.choice([0, 0, 0.1, 1]), generator.choice([10, 1000, 10**9])
    numbers = [generator.randrange(pool) for _ in range(count)]
    hashes = np.frombuffer(b"".join(fingerprint(b"%d" % number) for number in numbers), dtype=np.uint8)
    keys = [group_key(str(generator.randrange(groups))) if groups and generator.random() < 0.8 else 0 for _ in numbers]
    bands = [
        [
            2 * (generator.randrange(1, 3) if generator.random() < alike else generator.randrange(1, 2**62))
            for _ in range(14)
        ]
        for _ in numbers
    ]
    rows = np.array(bands, dtype=np.uint64).reshape(count, BANDS)
    return numbers, Documents(hashes.reshape(count, -1), np.array(keys, dtype=np.uint64), rows)


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_nothing_is_kept_twice_and_no_group_is_cut(first: int, tmp_path: Path) -> None:
    """Over three arrivals that know of each other; two documents without a group or more are in both parts."""
    for seed in range(first, first + 20):
        generator = random.Random(seed)
        seen = Seen(tmp_path, ())
        kept: set[int] = set()
        groups: dict[int, int] = {}
        for _ in range(3):
            numbers, documents = draw(generator)
            found = cut(documents, seen, generator.choice([0.02, 0.05, 0.3, 0.5]))
            at = np.flatnonzero(found.parts != DROPPED)
            fresh = [numbers[place] for place in at]
            assert len(set(fresh)) == len(fresh)
            assert not kept & set(fresh)
            assert kept | set(fresh) == kept | set(numbers)
            kept |= set(fresh)
            for place in at:
                if key := int(documents.groups[place]):
                    assert groups.setdefault(key, found.parts[place]) == found.parts[place]
            if np.count_nonzero(documents.groups[at] == 0) > 1:
                assert {TRAIN, HELD_OUT} == set(found.parts[at].tolist())
            held = found.parts[at].astype(np.uint64)
            seen.documents.add([document_keys(documents.hashes[at]) | held])
            seen.near.add([(documents.bands[at] | held[:, None]).reshape(-1)])
            seen.groups.add([found.groups])
