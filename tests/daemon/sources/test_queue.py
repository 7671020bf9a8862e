"""The queue between sources and the loop: bounded, in order, nothing dropped."""

import threading

import pytest

from daemon.door import Input, Offer
from daemon.sources.queue import BATCH, Inbox


def item(number: int, offers: int = 1) -> Input:
    """Make an input with so many offers."""
    return Input(offers=tuple(Offer(source="/s", id=f"{number}.{n}", where="w", digest=b"") for n in range(offers)))


def numbers(items: list[Input]) -> list[str]:
    """Return the ids of the inputs' first offers."""
    return [each.offers[0].id for each in items]


def test_inputs_come_in_order() -> None:
    """What was put first is taken first; all that waits is taken together."""
    inbox = Inbox()
    for number in range(5):
        assert inbox.put(item(number))
    assert inbox.depth() == 5
    assert numbers(inbox.take(0)) == [f"{n}.0" for n in range(5)]
    assert inbox.take(0) == []


def test_a_take_is_about_one_transaction() -> None:
    """Not more inputs than make a batch of offers; the rest waits for the next."""
    inbox = Inbox()
    for number in range(4):
        inbox.put(item(number, BATCH // 2))
    assert len(inbox.take(0)) == 2
    assert len(inbox.take(0)) == 2
    inbox.put(item(9, 3 * BATCH))
    assert len(inbox.take(0)) == 1


def put_in_thread(inbox: Inbox, count: int, results: list[bool]) -> threading.Thread:
    """Put so many inputs from another thread."""

    def work() -> None:
        results.extend(inbox.put(item(number)) for number in range(count))

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_full_queue_makes_its_source_wait() -> None:
    """Twenty inputs pass through a queue of two; none is lost, and there are never more than two inside."""
    inbox = Inbox(size=2)
    results: list[bool] = []
    thread = put_in_thread(inbox, 20, results)
    taken: list[Input] = []
    while len(taken) < 20:
        assert inbox.depth() <= 2
        taken += inbox.take(10)
    thread.join(10)
    assert results == [True] * 20
    assert numbers(taken) == [f"{n}.0" for n in range(20)]


def test_a_paused_inbox_takes_nothing_until_it_is_resumed() -> None:
    """Sources wait while the journal is full, and go on afterwards."""
    inbox = Inbox()
    inbox.pause()
    results: list[bool] = []
    thread = put_in_thread(inbox, 3, results)
    assert inbox.take(0.05) == []
    inbox.resume()
    thread.join(10)
    assert results == [True] * 3
    assert inbox.depth() == 3


@pytest.mark.parametrize("how", ["full", "paused"])
def test_closing_frees_whoever_waits(how: str) -> None:
    """A source that waits in `put` learns that it was not taken; later puts are refused at once."""
    inbox = Inbox(size=1)
    if how == "full":
        inbox.put(item(0))
    else:
        inbox.pause()
    results: list[bool] = []
    thread = put_in_thread(inbox, 1, results)
    inbox.close()
    thread.join(10)
    assert results == [False]
    assert not inbox.put(item(9))


def test_a_wake_ends_the_wait() -> None:
    """`take` returns with nothing when it is woken; a wake-up among inputs loses none."""
    inbox = Inbox()
    inbox.wake()
    assert inbox.take(None) == []
    inbox.put(item(1))
    inbox.wake()
    inbox.put(item(2))
    assert numbers(inbox.take(0) + inbox.take(0)) == ["1.0", "2.0"]


def test_waking_a_full_queue_is_harmless() -> None:
    """There is something to take anyway."""
    inbox = Inbox(size=1)
    inbox.put(item(1))
    inbox.wake()
    assert numbers(inbox.take(0)) == ["1.0"]


def test_an_offer_is_taken_now_or_not_at_all() -> None:
    """Nobody waits: while the queue is full, paused or closed the answer is no, and nothing is kept."""
    inbox = Inbox(size=2)
    assert [inbox.offer(item(number)) for number in range(3)] == [True, True, False]
    assert numbers(inbox.take(0)) == ["0.0", "1.0"]
    inbox.pause()
    assert not inbox.offer(item(4))
    inbox.resume()
    assert inbox.offer(item(5))
    inbox.close()
    assert not inbox.offer(item(6))
    assert numbers(inbox.take(0)) == ["5.0"]


def test_a_burst_of_single_events_is_taken() -> None:
    """A thousand requests with one event each find room; the next one may have to wait."""
    inbox = Inbox()
    assert all(inbox.offer(item(number)) for number in range(1000))


def test_what_waits_is_bounded_in_bytes() -> None:
    """Large texts fill the queue long before there are many; taken away they make room again."""
    inbox = Inbox(weight=10_000)
    large = Input(offers=(Offer(source="/s", id="1", where="w", digest=b"", text=b"x" * 9_000),))
    assert [inbox.offer(large) for _ in range(2)] == [True, False]
    inbox.take(0)
    assert inbox.offer(large)
