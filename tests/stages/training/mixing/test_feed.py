"""The feed: the batches that the mixture draws, ahead of time, and an end without anything left over."""

import threading
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import pytest
import torch

from daemon.core.errors import StageError
from stages.training.mixing.feed import AHEAD, Feed
from stages.training.mixing.mixture import Batch, Mixture, Share, everything
from stages.training.models.base import Adapter, Row

CPU = torch.device("cpu")


class Numbers:
    """A mixture whose batch `step` holds the rows 10·step, 10·step + 1 …; it notes what was drawn."""

    def __init__(self, fail: Callable[[int], None] = lambda _: None) -> None:
        self.drawn: list[int] = []
        self.fail = fail

    def draw(self, step: int, share: Share = everything) -> Batch:
        """Return a batch of six rows."""
        self.drawn.append(step)
        self.fail(step)
        rows = share(cast("Sequence[tuple[object, int]]", [(None, 10 * step + at) for at in range(6)]))  # type: ignore[arg-type]
        return Batch(rows=[np.array([row]) for _, row in rows], domains=["a"] * 6, past=0)


class Lists:
    """An adapter whose inputs are lists of numbers."""

    def collate(self, rows: Sequence[Row], device: torch.device) -> object:
        """Return the rows' first tokens."""
        assert device == CPU
        return [int(row[0]) for row in rows]


def make(numbers: Numbers, first: int, last: int, *, share: Share = everything, parts: int = 1) -> Feed:
    """Return a feed of these."""
    return Feed(cast("Mixture", numbers), cast("Adapter", Lists()), CPU, first, last, share=share, parts=parts)


def test_every_step_has_its_batch() -> None:
    """From the first to the last, in order, each collated."""
    with make(Numbers(), 3, 12) as feed:
        fed = list(feed)
    assert [step for step, _, _ in fed] == list(range(3, 13))
    assert [inputs for _, _, inputs in fed] == [[[10 * step + at for at in range(6)]] for step in range(3, 13)]
    assert all(len(batch.rows) == 6 for _, batch, _ in fed)
    assert feed.waited > 0


def test_a_batch_comes_in_parts_and_shares() -> None:
    """A process has its share of it, in as many equal parts as it computes one after the other."""
    with make(Numbers(), 1, 1, share=lambda rows: rows[2:], parts=2) as feed:
        ((_, batch, inputs),) = feed
    assert inputs == [[12, 13], [14, 15]]
    assert len(batch.rows) == 4
    assert len(batch.domains) == 6


def test_it_runs_ahead_and_no_further() -> None:
    """A few batches wait; the next is drawn when one is taken."""
    numbers = Numbers()
    with make(numbers, 1, 1000) as feed:
        iterator = iter(feed)
        for taken in range(1, 51):
            next(iterator)
            assert len(numbers.drawn) <= taken + AHEAD + 1
    assert len(numbers.drawn) < 60


def test_what_goes_wrong_is_raised_at_its_step() -> None:
    """The batches before it come first."""

    def fail(step: int) -> None:
        if step == 4:
            raise StageError("bad_sample", "The fourth is torn.")

    with make(Numbers(fail), 1, 9) as feed:
        iterator = iter(feed)
        assert [next(iterator)[0] for _ in range(3)] == [1, 2, 3]
        with pytest.raises(StageError, match="fourth"):
            next(iterator)


def test_an_exit_does_not_hang_the_loop() -> None:
    """What a user's collate does to leave the process comes out of the feed as well."""

    def fail(_: int) -> None:
        raise SystemExit(3)

    with make(Numbers(fail), 1, 9) as feed, pytest.raises(SystemExit):
        next(iter(feed))


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_it_ends_when_the_loop_leaves(taken: int) -> None:
    """Before, between or after its batches; no thread stays."""
    with make(Numbers(), 1, 5) as feed:
        iterator = iter(feed)
        for _ in range(taken):
            next(iterator)
    assert not [thread for thread in threading.enumerate() if thread.name == "feed"]


def test_a_run_that_is_done_needs_no_batch() -> None:
    """It was interrupted after its last step."""
    with make(Numbers(), 8, 7) as feed:
        assert list(feed) == []
