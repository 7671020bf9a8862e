"""The state as the journal tells it: from the newest good snapshot, then record by record."""

from collections.abc import Callable

import msgspec

from daemon.core.state import State, fingerprint, load
from daemon.core.transition import REDUCER_VERSION, evolve
from daemon.journal.base import Reader, scan

TICK_RECORDS = 1000


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """A folded state, the position of the snapshot it began at (0: none), and the snapshots that were skipped."""

    state: State
    snapshot: int
    skipped: tuple[str, ...] = ()


def restore(reader: Reader, *, use_snapshots: bool = True, tick: Callable[[], None] = lambda: None) -> Restored:
    """Return the state at the journal's head; `tick` is called every now and then, and may end it by raising.

    A snapshot whose hash does not match, that does not parse or that lies beyond the head is skipped; one of
    another reducer version is not even asked for, so a new reducer folds from the start.
    """
    skipped = []
    state, begun = State(), 0
    head = reader.head()
    for snapshot in reader.snapshots(REDUCER_VERSION) if use_snapshots else []:
        if fingerprint(snapshot.state) != snapshot.hash or snapshot.position > head:
            skipped.append(f"snapshot at {snapshot.position}: its hash does not match")
            continue
        try:
            state, begun = load(snapshot.state), snapshot.position
        except msgspec.MsgspecError as error:
            skipped.append(f"snapshot at {snapshot.position}: {error}")
            continue
        break
    for record in scan(reader, begun):
        if record.position % TICK_RECORDS == 0:
            tick()
        state = evolve(state, record)
    return Restored(state=state, snapshot=begun, skipped=tuple(skipped))
