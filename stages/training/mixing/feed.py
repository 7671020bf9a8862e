"""Batches ahead of the loop: read and collated in a thread while the model computes.

A thread, for a process that has used torch must not be forked; what it does lets go of the interpreter's lock
wherever bytes are copied. It draws by step alone, so that nothing depends on how far ahead it is.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import TracebackType
from typing import Self

import torch

from daemon.core.errors import StageError
from daemon.core.plans import Document
from stages.training.mixing.mixture import Batch, Mixture, Share, everything
from stages.training.models.base import Adapter

AHEAD = 2
Fed = tuple[int, Batch, list[object]]


class Feed:
    """Yields (step, batch, inputs) of the steps `first`..`last`; use it in a `with`, which ends the thread.

    `inputs` are the batch's rows in `parts` equal parts, each as `row_losses` takes it. `share` is the part of a
    batch that this process reads. What goes wrong with a batch is raised at its step, and a document that cannot be
    used is named. Of a step that is `left_out` nothing is drawn, and nothing given. `waited` are the seconds that the
    loop has waited for batches; the first one always is.
    """

    def __init__(
        self,
        mixture: Mixture,
        adapter: Adapter,
        device: torch.device,
        first: int,
        last: int,
        *,
        share: Share = everything,
        parts: int = 1,
        left_out: Callable[[int], bool] = lambda _: False,
    ) -> None:
        self.waited = 0.0
        self._mixture = mixture
        self._adapter = adapter
        self._device = device
        self._steps = range(first, last + 1)
        self._share = share
        self._parts = parts
        self._left_out = left_out
        self._ready: queue.Queue[Fed | BaseException] = queue.Queue(maxsize=AHEAD)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="feed", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed.set()
        while self._thread.is_alive():
            # The thread may wait for room: take away what it has put.
            try:
                self._ready.get(timeout=0.05)
            except queue.Empty:
                continue
        self._thread.join()

    def __iter__(self) -> Iterator[Fed]:
        for _ in self._steps:
            began = time.perf_counter()
            fed = self._ready.get()
            self.waited += time.perf_counter() - began
            if isinstance(fed, BaseException):
                raise fed
            yield fed

    def _fill(self) -> None:
        for step in self._steps:
            if self._closed.is_set():
                return
            try:
                self._ready.put(self._make(step))
            except BaseException as error:  # noqa: BLE001 - raised again where the batch is asked for
                self._ready.put(error)
                return

    def _make(self, step: int) -> Fed:
        if self._left_out(step):
            return step, Batch(rows=[], domains=[], past=0), []
        batch = self._mixture.draw(step, self._share)
        cuts = [len(batch.rows) * part // self._parts for part in range(self._parts + 1)]
        parts = [batch.rows[start:end] for start, end in pairwise(cuts)]
        try:
            return step, batch, [self._adapter.collate(part, self._device) for part in parts]
        except StageError as error:
            if error.failure == "bad_sample":
                error.step, error.documents = step, self._refused(batch)
            raise

    def _refused(self, batch: Batch) -> tuple[Document, ...]:
        """Return the documents that cannot be used even alone; none where that is all of several: it is not they."""
        refused = []
        for row, place in zip(batch.rows, self._share(batch.places), strict=True):
            try:
                self._adapter.collate([row], self._device)
            except StageError:
                refused.append(place)
        if len(refused) == len(batch.rows) > 1:
            return ()
        return tuple(dict.fromkeys(each for place in refused for each in self._mixture.documents(place)))
