"""A follower: what it tells, where it begins, how it waits, and that it ends."""

import logging
import threading
import time
from collections.abc import Callable

import pytest

from daemon.core.errors import BrokerError
from ops.followers import Followers
from ops.notify.cursor import Cursor, read_cursor, write_cursor
from ops.publishing.cursor import cursor_file
from ops.publishing.publisher import PAGE, Publisher
from ops.publishing.transitions import Transitions
from tests.ops.publishing.world import Bench

PATIENCE = 20.0
HELD = Transitions(on=frozenset({"run.held"}))


def drain(follower: Publisher) -> None:
    """Tell all that there is to tell."""
    while follower.step() is not None:
        pass


def wait_until(true: Callable[[], bool]) -> None:
    """Return when something is true."""
    until = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < until
        time.sleep(0.001)


def away() -> BrokerError:
    """Return what is raised while the cluster is away."""
    return BrokerError("127.0.0.1:9092 cannot be reached.")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged since, without what was normal."""
    told = [record.getMessage() for record in caplog.records if record.name == "rewarm.publishing"]
    caplog.clear()
    return told


def test_who_has_nothing_to_tell_asks_nobody(bench: Bench) -> None:
    """Without a dead letter of its source no topic is opened, and no connection made."""
    follower = bench.publisher()
    assert follower.step() is None
    bench.held()
    bench.letter(source="other")
    assert follower.step() is None
    assert bench.topic.opened == []


def test_all_dead_letters_since_the_beginning_are_told(bench: Bench) -> None:
    """A topic that has no cursor is told of everything, in order, in as many transactions as that takes."""
    wanted = [bench.letter(offset).position for offset in range(PAGE + 3)]
    bench.held()
    follower = bench.publisher()
    drain(follower)
    assert bench.topic.told == wanted
    assert bench.topic.cursors == {bench.journal.identity(): wanted[-1]}
    assert len(bench.topic.opened) == 1


def test_a_new_topic_of_transitions_begins_at_the_head(bench: Bench) -> None:
    """It is told of what happens from here on, also when the first daemon dies before anything does."""
    bench.held()
    bench.publisher(HELD, new="head")
    told = bench.held()
    drain(bench.publisher(HELD, new="head"))
    assert bench.topic.told == [told.position]


def test_the_cluster_knows_better_than_the_file(bench: Bench) -> None:
    """Killed between the commit and the file, the next daemon tells nothing again."""
    first = [bench.letter(offset).position for offset in range(2)]
    bench.topic.cursors[bench.journal.identity()] = first[0]
    drain(bench.publisher())
    assert bench.topic.told == first[1:]
    file = cursor_file(bench.state, "main.dlq")
    assert read_cursor(file) == Cursor(journal=bench.journal.identity(), position=first[1])


def test_what_we_know_to_be_told_is_not_told_again(bench: Bench) -> None:
    """A cluster that knows less than we were told when we committed is behind; that lasts a moment."""
    first, second = bench.letter(), bench.letter()
    drain(bench.publisher())
    bench.topic.cursors[bench.journal.identity()] = first.position
    third = bench.letter()
    drain(bench.publisher())
    assert bench.topic.told == [first.position, second.position, third.position]


def test_the_file_stands_in_when_the_cluster_has_forgotten(bench: Bench) -> None:
    """Brokers forget a cursor after a week without a commit: nothing is told again for that."""
    bench.letter()
    drain(bench.publisher())
    bench.topic.cursors.clear()
    told = bench.letter()
    drain(bench.publisher())
    assert bench.topic.told == [1, told.position]


def test_with_the_file_nobody_is_asked(bench: Bench) -> None:
    """A daemon that starts with everything told makes no connection."""
    bench.letter()
    drain(bench.publisher())
    bench.topic.opened.clear()
    drain(bench.publisher())
    assert bench.topic.opened == []


def test_what_became_of_a_commit_the_cluster_says(bench: Bench) -> None:
    """The answer to a commit that took effect was lost: nothing is told again."""
    first = bench.letter()
    follower = bench.publisher()
    bench.topic.after.append(away())
    assert follower.step() == 0.0
    assert follower.step() == 1.0
    second = bench.letter()
    drain(follower)
    assert bench.topic.told == [first.position, second.position]
    assert len(bench.topic.opened) == 2
    assert bench.topic.closed == 1


def test_a_restored_journal_goes_on_where_both_are_the_same(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its ancestor told of the common past is not told again; what came after that is another history."""
    letters = [bench.letter(offset).position for offset in range(4)]
    reader = type(bench.journal.reader())
    monkeypatch.setattr(reader, "ancestors", lambda _reader: {"ancestor": letters[2]})
    bench.topic.cursors["ancestor"] = letters[1]
    follower = bench.publisher()
    drain(follower)
    assert bench.topic.opened == [(bench.journal.identity(), "ancestor")]
    assert bench.topic.told == letters[2:]


def test_a_stranger_s_file_says_nothing(bench: Bench) -> None:
    """The file of a journal that is no ancestor counts as none."""
    letter = bench.letter()
    write_cursor(cursor_file(bench.state, "main.dlq"), Cursor(journal="another", position=99))
    drain(bench.publisher())
    assert bench.topic.told == [letter.position]


def test_it_is_tried_for_as_long_as_it_takes(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Pauses grow to a minute; the log tells when it began, when it changed, and when it was over."""
    caplog.set_level(logging.INFO)
    follower = bench.publisher()
    letter = bench.letter()
    bench.topic.errors += [away() for _ in range(8)]
    assert [follower.step() for _ in range(8)] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert follower.behind == 1
    assert lines(caplog) == ["A topic cannot be told; it is tried until it can."]
    bench.topic.errors.append(OSError("no room"))
    assert follower.step() == 60.0
    assert lines(caplog) == ["A topic cannot be told; it is tried until it can."]
    drain(follower)
    assert lines(caplog) == ["A topic is told again."]
    assert bench.topic.told == [letter.position]
    bench.topic.errors.append(away())
    bench.letter()
    assert follower.step() == 1.0


def test_a_newer_daemon_leads(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Who was fenced looks into the journal: another daemon leads, and this one says so once and ends."""
    bench.letter()
    follower = bench.publisher()
    drain(follower)
    bench.another_daemon()
    bench.letter()
    bench.topic.errors.append(BrokerError("fenced"))
    assert follower.step() == 1.0
    caplog.clear()
    assert follower.step() == 0.0
    follower.run()
    assert lines(caplog) == ["A newer daemon leads: this one tells a topic nothing any more."]
    assert len(bench.topic.opened) == 1


def test_who_leads_begins_anew_after_it_was_fenced(bench: Bench) -> None:
    """A transaction that took too long is fenced as well: who leads still becomes the one writer again."""
    bench.letter()
    follower = bench.publisher()
    drain(follower)
    second = bench.letter()
    bench.topic.errors.append(BrokerError("fenced"))
    drain(follower)
    assert bench.topic.told == [1, second.position]


def test_one_message_that_is_refused_stops_no_other(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """The one at fault is told in a more modest form, in its place; all others as they came."""
    letters = [bench.letter(offset, text=b"x" * 9 if offset == 2 else b"x") for offset in range(5)]
    bench.topic.refuses = lambda message: len(message.value or b"") > 5
    drain(bench.publisher())
    assert bench.topic.told == [letter.position for letter in letters]
    assert [message.value for message in bench.topic.messages] == [b"x", b"x", b"", b"x", b"x"]
    assert len(lines(caplog)) == 2
    later = [bench.letter(offset) for offset in range(3)]
    bench.topic.opened.clear()
    drain(bench.publisher())
    assert bench.topic.told[5:] == [letter.position for letter in later]


def test_what_is_refused_in_every_form_is_passed_over(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """It stays in the journal, the log says so, and the cursor goes on."""
    letters = [bench.letter(offset) for offset in range(3)]
    bench.topic.refuses = lambda message: message.position == letters[1].position
    drain(bench.publisher())
    assert bench.topic.told == [letters[0].position, letters[2].position]
    assert "The brokers do not take a message in any form: it is in the journal alone." in lines(caplog)


def test_how_far_behind(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records from the last one that was told to the head, 0 when nothing waits."""
    monkeypatch.setattr("ops.publishing.publisher.SHORTEST", 0.01)
    bench.held()
    follower = bench.publisher()
    thread = threading.Thread(target=follower.run)
    thread.start()
    wait_until(lambda: follower.behind == 0)
    bench.held()
    assert follower.behind == 0
    bench.topic.errors += [away() for _ in range(3)]
    bench.letter()
    bench.held()
    assert follower.behind == 3
    wait_until(lambda: follower.behind == 0)
    assert bench.topic.told == [3]
    follower.stop()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert bench.topic.closed == 1


def test_the_end_waits_for_no_pause(bench: Bench) -> None:
    """A follower in the middle of a long pause ends at once."""
    bench.letter()
    bench.topic.errors += [away() for _ in range(100)]
    follower = bench.publisher()
    followers = Followers([follower])
    followers.start()
    wait_until(lambda: len(bench.topic.errors) < 100)
    began = time.monotonic()
    followers.stop()
    assert time.monotonic() - began < 0.9
