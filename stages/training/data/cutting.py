"""Which documents of an arrival are kept, which of them nearly are another, and which are held out of training.

Documents are cut by their hash, those of a group together by the group's. What is nearly equal to an earlier document
goes where that one is, so that nothing is measured that was as good as trained on, within an arrival and across
arrivals. Text that is all alike would so end wholly in one part: where that would move more than the share to hold
out, documents are cut by their own hash after all, and the manifest counts them as `near_leaks`.
"""

import msgspec
import numpy as np
import numpy.typing as npt

from stages.training.data.identity import Keys, is_below, spread
from stages.training.data.seen import HELD_OUT, NOWHERE, TRAIN, Places, Seen, document_keys

DROPPED = -1
FEW = 2
"""Documents that may always follow another one into its part."""
Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Documents(msgspec.Struct, frozen=True):
    """An arrival's documents in its order: hashes (n, 16), group keys (n,) and band keys (n, BANDS); 0 is none."""

    hashes: npt.NDArray[np.uint8]
    groups: Keys
    bands: Keys


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of each document: TRAIN, HELD_OUT or DROPPED, (n,) int8; counts are of documents that are kept.

    `near_leaks` lie in another part than a document that they nearly are. `learned` is all that was taken from what
    was seen before: the same file with the same `learned` is cut the same way.
    """

    parts: Places
    duplicates: int
    near_duplicates: int
    near_leaks: int
    groups: Keys
    learned: tuple[bytes, bytes]


def cut(documents: Documents, seen: Seen, share: float) -> Cut:
    """Return what becomes of each document; about `share` of them are held out.

    Of two documents, or groups, or more at least one falls in each part, unless what was seen before forbids it.
    """
    names = np.ascontiguousarray(documents.hashes).view("<u8")[:, 0]
    known = seen.documents.find(document_keys(documents.hashes)) != NOWHERE
    kept = np.flatnonzero(_firsts(names) == np.arange(len(names)))
    kept = kept[~known[kept]]
    names, groups = names[kept], documents.groups[kept]
    leaders, past = _near(documents.bands, kept, seen)
    grouped = groups != 0
    past_groups = seen.groups.find(groups)
    roots = _roots(np.where(grouped, _firsts(groups), leaders))
    units = _Units(names=names, groups=groups, roots=roots, past=past, past_groups=past_groups)
    held = units.filled(units.cut(share), share)
    parts = np.full(len(documents.hashes), DROPPED, dtype=np.int8)
    parts[kept] = np.where(held, HELD_OUT, TRAIN)
    near = (leaders != np.arange(len(kept))) | (past != NOWHERE)
    leaks = (held[leaders] != held) | ((past != NOWHERE) & ((past == HELD_OUT) != held))
    unique, where = np.unique(groups[grouped], return_index=True)
    return Cut(
        parts=parts,
        duplicates=len(parts) - len(kept),
        near_duplicates=int(near.sum()),
        near_leaks=int(leaks.sum()),
        groups=unique | held[grouped][where],
        learned=(_joined(documents.hashes[known]), units.learned(documents.hashes[kept])),
    )


class _Units(msgspec.Struct, frozen=True, kw_only=True):
    """Documents as units that stay together: each has the place of its unit's first one in `roots`, all (n,).

    `past` is the part of what a document nearly is among what was seen before, `past_groups` that of its group.
    """

    names: Keys
    groups: Keys
    roots: Numbers
    past: Places
    past_groups: Places

    @property
    def _alone(self) -> Flags:
        alone: Flags = self.groups == 0
        return alone

    @property
    def _draws(self) -> Keys:
        """What decides by chance: a document's hash or its group's, whose last bit is none."""
        return np.where(self._alone, self.names, (self.groups >> np.uint64(1)) ^ (self.groups << np.uint64(62)))

    @property
    def _imposed(self) -> Places:
        """The part that what was seen before demands of the unit: held out, where it demands both."""
        demanded = np.full(len(self.names), NOWHERE, dtype=np.int8)
        np.maximum.at(demanded, self.roots, np.where(self._alone, self.past, NOWHERE))
        grouped = self.groups[self.roots] != 0
        return np.where(grouped, self.past_groups[self.roots], demanded[self.roots])

    def cut(self, share: float) -> Flags:
        """Return what is held out by hash, by group, and by what each document nearly is."""
        count, imposed = len(self.names), self._imposed
        own = is_below(self.names, share)
        chance = is_below(self._draws[self.roots], share)
        held: Flags = (imposed == HELD_OUT) | (chance & (imposed == NOWHERE))
        most = max(FEW, share * count)
        sizes = np.bincount(self.roots[self._alone], minlength=count)
        large = self._alone & (imposed == NOWHERE) & (sizes[self.roots] > most)
        held[large] = own[large]
        drawn = self._alone & held & ~own & ~large
        if drawn.sum() > 2 * most:
            held[drawn] = False
        if held.sum() < share / 2 * count - 1:
            held |= self._alone & own
        return held

    def filled(self, held: Flags, share: float) -> Flags:
        """Return the same, but for a part that would stay empty: the unit whose hash is nearest goes there."""
        count = len(held)
        if held.all() and count:
            self._move(held, to=False, share=share)
        elif not held.any() and count > 1:
            self._move(held, to=True, share=share)
        return held

    def _move(self, held: Flags, *, to: bool, share: float) -> None:
        order = spread(self._draws)
        sizes = np.bincount(self.roots, minlength=len(held))
        small = self.groups[self.roots] != 0
        small |= sizes[self.roots] <= max(FEW, share * len(held))
        firsts = np.flatnonzero((self.roots == np.arange(len(held))) & (self._imposed == NOWHERE) & small)
        several = len(np.unique(self.roots)) > 1
        whole = not to and (len(held) == 1 or self.groups[self.roots[0]] != 0)
        if len(firsts) and (several or whole):
            chosen = firsts[np.argmin(order[firsts]) if to else np.argmax(order[firsts])]
            held[self.roots == chosen] = to
            return
        singles = np.flatnonzero(self._alone)
        if len(singles) and (len(held) > 1 or self._imposed[0] == NOWHERE):
            held[singles[np.argmin(order[singles]) if to else np.argmax(order[singles])]] = to

    def learned(self, hashes: npt.NDArray[np.uint8]) -> bytes:
        """Return which of the documents, by their hashes, have near ones or a group among what was seen before."""
        parts = ((hashes, self.past), (self.groups.view(np.uint8).reshape(-1, 8), self.past_groups))
        rows = [np.column_stack((keys, places.view(np.uint8)))[places != NOWHERE] for keys, places in parts]
        return b"|".join(_joined(each) for each in rows) if any(len(each) for each in rows) else b""


def _firsts(keys: Keys) -> Numbers:
    """Return for each key where it stands first; 0 stands for itself."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    fresh = np.ones(len(keys), dtype=bool)
    fresh[1:] = (ordered[1:] != ordered[:-1]) | (ordered[1:] == 0)
    begins = np.flatnonzero(fresh)
    firsts = np.empty(len(keys), dtype=np.int64)
    firsts[order] = np.repeat(order[begins], np.diff(np.append(begins, len(keys))))
    return firsts


def _near(bands: Keys, kept: Numbers, seen: Seen) -> tuple[Numbers, Places]:
    """Return the first kept document that shares a band with each, itself where none is earlier; and the past part."""
    leaders = np.arange(len(kept))
    past = np.full(len(kept), NOWHERE, dtype=np.int8)
    for band in range(bands.shape[1]):
        keys = bands[kept, band]
        np.maximum(past, seen.near.find(keys), out=past)
        np.minimum(leaders, _firsts(keys), out=leaders)
    return leaders, past


def _roots(parents: Numbers) -> Numbers:
    """Return the end of each chain of parents, none of which comes later."""
    while not np.array_equal(further := parents[parents], parents):
        parents = further
    return parents


def _joined(rows: npt.NDArray[np.uint8]) -> bytes:
    """Return distinct rows of bytes in their order, end to end."""
    return np.unique(rows, axis=0).tobytes() if len(rows) else b""
