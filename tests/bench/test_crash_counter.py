"""What the counter of the crash benches expects, from a ledger and from what topics hold."""

import random
from pathlib import Path

import pytest

from daemon.core.errors import InputError
from daemon.door import Door, Letter
from tests.bench.crash_counter import PIPELINES, POISON, Poison, produced, spooled, text_of
from tests.bench.crash_feeds import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A ledger of two deliveries."""
    path = tmp_path / "ledger"
    path.write_text("a fact:1 bad:2 fact:3\nb again:1 kind:4\n", encoding="utf-8")
    return path


def test_a_file_that_came_twice_counts_once(ledger: Path) -> None:
    """The spool knows a file by its content; a fact in another file is a duplicate."""
    text = ledger.read_text(encoding="utf-8")
    ledger.write_text(f"{text}c fact:1 bad:2 fact:3\n", encoding="utf-8")
    sent = spooled(ledger)
    assert (sent.facts, sent.duplicates, sent.wrong) == ({1, 3}, 1, [])
    assert sent.poison[text_of("kind:4")] == Poison(entry="kind:4", reason="unknown_kind")


def test_topics_say_how_often_something_was_sent(ledger: Path) -> None:
    """A client may repeat what it was not told of; what no topic holds never reached the brokers."""
    entries = ("fact:1", "again:1", "again:1", "bad:2", "bad:2", "kind:4")
    held = {text_of(entry): sum(text_of(each) == text_of(entry) for each in entries) for entry in entries}
    sent = produced(ledger, held)
    assert (sent.facts, sent.duplicates) == ({1, 3}, 2)
    assert sent.poison[text_of("bad:2")].times == 2
    assert sent.wrong == ["fact:3 is in no topic"]


@pytest.mark.parametrize("sort", POISON)
def test_poison_is_refused_for_the_reason_that_is_expected(sort: str, tmp_path: Path) -> None:
    """The door agrees with the counter's list, and takes the fact that the poison is made of."""
    (tmp_path / "data.jsonl").write_text("{}", encoding="utf-8")
    door = Door(pipelines=dict.fromkeys(PIPELINES), roots=(tmp_path,))

    def refusal(text: bytes) -> str | None:
        offer = door.receive(Letter(text=text, where="t", source="/t", id="1"))
        if offer.refusal is not None or offer.event is None:
            return offer.refusal[0] if offer.refusal else ""
        try:
            door.complete(offer.event, (), 1)
        except InputError as error:
            return error.reason
        return None

    assert refusal(text_of(f"{sort}:7")) == POISON[sort]
    assert refusal(text_of("fact:7")) is None


def test_a_ledger_goes_on_where_it_was_left(tmp_path: Path) -> None:
    """Serial numbers are never used twice, shares are kept, and what is repeated was sent before."""
    path, rng = tmp_path / "ledger", random.Random(1)
    first = Ledger(path, again=0.1, poison=0.1, sorts=tuple(POISON))
    first.write("a", first.draw(rng, 500))
    second = Ledger(path, again=0.1, poison=0.1, sorts=tuple(POISON))
    second.write("b", second.draw(rng, 500))
    entries = [entry for line in path.read_text(encoding="utf-8").splitlines() for entry in line.split()[1:]]
    fresh = [entry.partition(":")[2] for entry in entries if not entry.startswith("again:")]
    assert len(fresh) == len(set(fresh))
    assert {entry for entry in entries if entry.startswith("again:")} <= {
        f"again:{serial}" for serial in fresh if f"fact:{serial}" in entries
    }
    assert 60 < len(entries) - len(fresh) < 140
    assert 60 < sum(entry.partition(":")[0] in POISON for entry in entries) < 140
