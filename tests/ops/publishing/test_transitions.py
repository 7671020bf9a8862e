"""Transitions as messages: the events that webhooks are sent."""

import json

from msgspec.structs import replace

from ops.notify.message import body
from ops.publishing.transitions import Transitions
from tests.ops.publishing.world import Bench

CONTENT = Transitions(on=frozenset({"run.held"}))


def test_a_transition_is_what_a_webhook_is_sent(bench: Bench) -> None:
    """The same CloudEvent under the same id, by pipeline, with the time of its record."""
    record = replace(bench.held(), pipeline="docs-lm")
    message = CONTENT.message("journal", record)
    assert message is not None
    assert message.value == body("journal", record)
    assert json.loads(message.value)["id"] == "journal/1"
    assert message.key == b"docs-lm"
    assert message.headers == (("content-type", b"application/cloudevents+json; charset=utf-8"),)
    assert message.timestamp == int(record.recorded_at.timestamp() * 1000)


def test_what_is_about_no_pipeline_has_no_key(bench: Bench) -> None:
    """It goes to the first partition."""
    message = CONTENT.message("journal", bench.another_daemon())
    assert message is not None
    assert (message.key, message.partition) == (None, 0)


def test_an_event_that_is_refused_has_no_other_form(bench: Bench) -> None:
    """Without its data it would say nothing."""
    assert CONTENT.message("journal", bench.held(), 1) is None
