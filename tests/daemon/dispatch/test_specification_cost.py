"""What it costs to tell an attempt everything: a journal of years is not read from its beginning."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from daemon.core.events import Record
from daemon.dispatch.specification import specify
from daemon.journal.base import Reader
from daemon.journal.sqlite_file import RARE_KINDS
from stages.run_folder import Specification

Build = Any
Book = Any


class Asked:
    """A reader that notes what is looked for through the whole journal without an index for it."""

    def __init__(self, book: Reader) -> None:
        self._book = book
        self.unindexed: set[str] = set()

    def records(
        self,
        after: int,
        limit: int = 1000,
        *,
        upto: int | None = None,
        kinds: Collection[str] = (),
        pipeline: str | None = None,
        run: str | None = None,
    ) -> list[Record]:
        """Answer as the journal would."""
        if run is None and upto is None:
            self.unindexed |= set(kinds) - RARE_KINDS
        return self._book.records(after, limit, upto=upto, kinds=kinds, pipeline=pipeline, run=run)


@pytest.mark.parametrize("stage", ["ingest", "probe", "train"])
def test_nothing_is_looked_for_through_the_whole_journal(build: Build, book: Book, tmp_path: Path, stage: str) -> None:
    """Each question is one of a kind that is rare, of a run, or of the plan's own spans."""
    pipeline = build.pipeline(build.run(build.order(stage), build.plan((0, 1))))
    asked: Any = Asked(book)

    told = specify(asked, pipeline, pipeline.active.order, state=Path("/state"), roots=(tmp_path,), threads=1)

    assert isinstance(told, Specification)
    assert asked.unindexed == set()
