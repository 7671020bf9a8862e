"""Dead letters as messages: what came is told as it came, and Kafka Connect's headers say why it was not taken.

https://cwiki.apache.org/confluence/display/KAFKA/KIP-298%3A+Error+Handling+in+Connect names the headers.
"""

import msgspec
from msgspec.structs import replace

from daemon.core.events import Carrier, InputRejected, Record
from ops.notify.message import identity
from ops.publishing.messages import Message, milliseconds

CONNECT = "__connect.errors."
OWN = "rewarm.errors."
STAGE = "DOOR"
CLASS = "io.rewarm.Door"
TOO_LARGE = "too_large"
LONGEST_KEY = 1024


class DeadLetters(msgspec.Struct, frozen=True, kw_only=True):
    """The dead letters of one source; `group` is what Kafka Connect would call the connector."""

    source: str
    group: str

    @property
    def kinds(self) -> frozenset[str]:
        """The kind that a dead letter is recorded as."""
        return frozenset({InputRejected.kind})

    def message(self, journal: str, record: Record, refusals: int = 0) -> Message | None:
        """Return a dead letter of this source with the key, value, headers and timestamp that it came with.

        Refused: with the time of its record; refused again: without value, headers and a long key.
        """
        event, carrier = record.event, record.carrier
        if not isinstance(event, InputRejected) or carrier is None or carrier.source != self.source or refusals > 2:  # noqa: PLR2004 - see above
            return None
        value = record.text if carrier.value is None else carrier.value
        size = len(value or b"")
        note = f"as much of its value as was kept: {size} bytes" if event.reason == TOO_LARGE else ""
        timestamp = carrier.timestamp
        if refusals == 1:
            note = "the topic does not take its timestamp"
        if refusals == 2:  # noqa: PLR2004
            note = f"without its value of {size} bytes, its headers and a long key"
            carrier = replace(carrier, headers=(), key=carrier.key if len(carrier.key or b"") <= LONGEST_KEY else None)
            value = b""
        headers = {CONNECT + name: text for name, text in self._connect(event, carrier).items()}
        taken = {name for name, _ in carrier.headers}
        came = "" if timestamp is None else str(timestamp)
        own = {"reason": event.reason, "id": identity(journal, record), "timestamp": came, "note": note}
        return Message(
            position=record.position,
            timestamp=milliseconds(record) if timestamp is None or refusals else timestamp,
            key=carrier.key,
            value=value,
            headers=(
                # kafka-python sends no header without a value
                *((name, content or b"") for name, content in carrier.headers if not name.startswith(OWN)),
                *((name, text.encode()) for name, text in headers.items() if name not in taken),
                *((OWN + name, text.encode()) for name, text in own.items() if text),
            ),
            partition=carrier.partition or 0,
        )

    def _connect(self, event: InputRejected, carrier: Carrier) -> dict[str, str]:
        """Return what Kafka Connect would say, by the ends of its headers' names."""
        return {
            "topic": carrier.topic,
            "partition": "" if carrier.partition is None else str(carrier.partition),
            "offset": "" if carrier.offset is None else str(carrier.offset),
            "connector.name": self.group,
            "task.id": "0",
            "stage": STAGE,
            "class.name": CLASS,
            "exception.class.name": f"io.rewarm.{event.reason}",
            "exception.message": event.message,
        }
