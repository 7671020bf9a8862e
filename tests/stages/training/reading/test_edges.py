"""What files, folders and messages hold at their edges: gaps in a column, exchanged folders, secrets in parts."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from daemon.core.plans import DataSettings
from stages.credentials import without_secrets
from stages.roots import Remote
from stages.run_folder import Arrival
from stages.training.reading import Source, Unusable, documents, open_arrival


def test_gaps_in_a_column_of_numbers_are_no_group(source_of: Callable[..., Source], tmp_path: Path) -> None:
    """Pandas writes them as NaN: such documents have nothing in common."""
    columns = {"text": ["a", "b", "c"], "group": pa.array([7.0, float("nan"), float("nan")])}
    pq.write_table(pa.table(columns), tmp_path / "gaps")
    source = source_of((tmp_path / "gaps").read_bytes())

    assert [each.group for each in documents(source, "parquet", DataSettings())] == ["7", None, None]
    records = documents(source, "parquet", DataSettings(), records=True)
    assert [each.group for each in records] == ["7", None, None]


def test_a_folder_exchanged_for_a_link_leads_nowhere(
    tmp_path: Path, arrival_of: Callable[..., Arrival], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the check of the roots and the opening somebody who may write there puts a link on the way."""
    inbox, secret = tmp_path / "inbox" / "today", tmp_path / "secret"
    for folder in (inbox, secret):
        folder.mkdir(parents=True)
        (folder / "a.jsonl").write_text('{"text": "one"}\n')
    plainly = os.open

    def late(path: str, flags: int, *more: int) -> int:
        if str(path).endswith("a.jsonl") and not inbox.is_symlink():
            inbox.rename(tmp_path / "away")
            inbox.symlink_to(secret)
        return plainly(path, flags, *more)

    monkeypatch.setattr(os, "open", late)
    arrival = arrival_of(inbox / "a.jsonl")
    with (
        pytest.raises(Unusable, match="secret") as caught,
        open_arrival(arrival, (str(tmp_path / "inbox"),), tmp_path, lambda: None),
    ):
        pass
    assert caught.value.reason == "outside_roots"


@pytest.mark.parametrize(
    "options",
    [
        {"connection_string": "AccountName=us;AccountKey=0123456789abcdef=="},
        {"client_kwargs": {"headers": {"Authorization": "Bearer 0123456789abcdef=="}}},
        {"passphrase": "0123456789abcdef=="},
    ],
)
def test_parts_of_a_secret_are_secret(options: dict[str, object]) -> None:
    """A library may quote the key of a connection string alone."""
    assert without_secrets("Bad: 0123456789abcdef==.", options) == "Bad: ***."


def test_what_is_longer_than_announced_is_not_fetched_to_its_end(
    tmp_path: Path, arrival_of: Callable[..., Arrival], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that tells no size may send for ever: the disk is not filled with it."""
    sent: list[int] = []

    def fetch(*_: object) -> Iterator[bytes]:
        for number in range(100):
            sent.append(number)
            yield b"0123456789"

    monkeypatch.setattr("stages.training.reading.remote.fetch", fetch)
    arrival = arrival_of("https://host/in/a", bytes=25)
    with (
        pytest.raises(Unusable, match="30 bytes, announced were 25") as caught,
        open_arrival(arrival, (Remote(url="https://host/in"),), tmp_path, lambda: None),
    ):
        pass
    assert (caught.value.reason, len(sent)) == ("checksum", 3)
