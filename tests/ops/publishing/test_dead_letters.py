"""Dead letters as messages: what came, and why it was not taken."""

from ops.publishing.dead_letters import DeadLetters
from tests.ops.publishing.world import CAME, Bench

CONTENT = DeadLetters(source="main", group="rewarm")


def test_what_came_is_told_with_why_it_was_refused(bench: Bench) -> None:
    """Key, value, headers and timestamp are those of the message; Connect's headers and our own say the rest."""
    record = bench.letter(7, key=b"k", headers=(("h", b"1"), ("h", b"2"), ("empty", None)))
    message = CONTENT.message("journal", record)
    assert message is not None
    assert (message.key, message.value, message.timestamp, message.partition) == (b"k", b"{broken", CAME, 1)
    assert message.headers == (
        ("h", b"1"),
        ("h", b"2"),
        ("empty", b""),
        ("__connect.errors.topic", b"in"),
        ("__connect.errors.partition", b"1"),
        ("__connect.errors.offset", b"7"),
        ("__connect.errors.connector.name", b"rewarm"),
        ("__connect.errors.task.id", b"0"),
        ("__connect.errors.stage", b"DOOR"),
        ("__connect.errors.class.name", b"io.rewarm.Door"),
        ("__connect.errors.exception.class.name", b"io.rewarm.malformed"),
        ("__connect.errors.exception.message", "It is no JSON: ä.".encode()),
        ("rewarm.errors.reason", b"malformed"),
        ("rewarm.errors.id", b"journal/1"),
        ("rewarm.errors.timestamp", str(CAME).encode()),
    )


def test_the_message_itself_is_told_where_the_text_was_made_of_it(bench: Bench) -> None:
    """Binary mode and mappings make a text for the door: the topic gets what was on the wire."""
    message = CONTENT.message("journal", bench.letter(text=b'{"type": "made"}', value=b"on the wire"))
    assert message is not None
    assert message.value == b"on the wire"


def test_a_tombstone_stays_one(bench: Bench) -> None:
    """A message that had no value has none."""
    message = CONTENT.message("journal", bench.letter(text=None, key=b"k"))
    assert message is not None
    assert message.value is None


def test_headers_that_came_under_the_same_names(bench: Bench) -> None:
    """Connect's headers are left as they came; our own are always ours, for they name this very dead letter."""
    came = (("__connect.errors.topic", b"theirs"), ("rewarm.errors.id", b"of another"))
    message = CONTENT.message("journal", bench.letter(headers=came))
    assert message is not None
    assert [value for name, value in message.headers if name == "__connect.errors.topic"] == [b"theirs"]
    assert [value for name, value in message.headers if name == "rewarm.errors.id"] == [b"journal/1"]


def test_only_this_source_is_told_of(bench: Bench) -> None:
    """A dead letter of another source, or that came another way, or what is none, is passed over."""
    others = [bench.letter(source="other"), bench.held(), bench.add(bench.letter().event, text=b"by the spool")]
    assert [CONTENT.message("journal", record) for record in others] == [None] * 3


def test_refused_messages_become_more_modest(bench: Bench) -> None:
    """First the timestamp is given up, then value, headers and a long key; each says so, and then there is nothing."""
    record = bench.letter(key=b"k" * 2000, headers=(("h", b"1"),), text=b"long")
    now = int(record.recorded_at.timestamp() * 1000)
    first, second, third, fourth = (CONTENT.message("journal", record, refusals) for refusals in range(4))
    assert first is not None
    assert second is not None
    assert third is not None
    assert fourth is None
    assert (second.timestamp, second.value, second.key) == (now, b"long", b"k" * 2000)
    assert (third.timestamp, third.value, third.key) == (now, b"", None)
    assert ("h", b"1") in second.headers
    assert ("h", b"1") not in third.headers
    notes = [dict(message.headers).get("rewarm.errors.note") for message in (first, second, third)]
    assert notes == [
        None,
        b"the topic does not take its timestamp",
        b"without its value of 4 bytes, its headers and a long key",
    ]
    assert dict(third.headers)["rewarm.errors.timestamp"] == str(CAME).encode()


def test_a_short_key_stays(bench: Bench) -> None:
    """Without its value a dead letter still goes where its key says."""
    message = CONTENT.message("journal", bench.letter(key=b"k"), 2)
    assert message is not None
    assert message.key == b"k"


def test_what_was_too_large_was_not_kept_whole(bench: Bench) -> None:
    """Its value is as much as the journal has, and it says so."""
    message = CONTENT.message("journal", bench.letter(reason="too_large"))
    assert message is not None
    assert dict(message.headers)["rewarm.errors.note"] == b"as much of its value as was kept: 7 bytes"


def test_without_a_timestamp_it_has_that_of_its_record(bench: Bench) -> None:
    """A message may have come without one."""
    record = bench.letter(timestamp=None)
    message = CONTENT.message("journal", record)
    assert message is not None
    assert message.timestamp == int(record.recorded_at.timestamp() * 1000)
    assert "rewarm.errors.timestamp" not in dict(message.headers)
