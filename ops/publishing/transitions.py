"""Transitions as messages: the same CloudEvents that webhooks are sent, in structured mode, by pipeline.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

import msgspec

from daemon.core.events import Record
from ops.notify.message import CONTENT_TYPE, body
from ops.publishing.messages import Message, milliseconds


class Transitions(msgspec.Struct, frozen=True, kw_only=True):
    """The events of some kinds; their key is the pipeline, so that what happens to one stays in order."""

    on: frozenset[str]

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds that are told."""
        return self.on

    def message(self, journal: str, record: Record, refusals: int = 0) -> Message | None:
        """Return a record as a CloudEvent; one that was refused has nothing more modest."""
        if refusals:
            return None
        return Message(
            position=record.position,
            timestamp=milliseconds(record),
            key=record.pipeline.encode() if record.pipeline else None,
            value=body(journal, record),
            headers=(("content-type", CONTENT_TYPE.encode()),),
        )
