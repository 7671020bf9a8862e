"""The messages that Kafka carries, as AsyncAPI 3.0 describes them: events in two modes, plain JSON, dead letters.

Their schemas keep to what JSON Schema's drafts 7 and 2020-12 have in common: AsyncAPI's tools read the first.
"""

import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Final

from daemon.core.events import EVENTS
from daemon.door import OUTSIDE_KINDS
from daemon.schema import TEXT, Schema, event_components, event_envelopes, event_type, properties_of, required_of
from daemon.schema.mapped import mapped
from daemon.settings.kafka import KafkaSettings, MappingSettings, TopicSettings
from daemon.sources.cloudevents import PLAIN, STRUCTURED
from daemon.sources.kafka.messages import CONTENT_TYPE, PREFIX, TRACEPARENT
from ops.notify.message import SOURCE
from ops.publishing.dead_letters import CONNECT, OWN

BINDING: Final = "0.5.0"
SCHEMAS: Final = "#/components/schemas/{name}"
TRACE: Final[Schema] = {
    "type": "string",
    "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}",
    "description": "the trace that the event belongs to: https://www.w3.org/TR/trace-context/#traceparent-header",
}
CORRELATION: Final[dict[str, Schema]] = {
    "traceInHeaders": {
        "description": "The trace that the event belongs to; the run that it causes is tagged with it.",
        "location": f"$message.header#/{TRACEPARENT}",
    },
    "traceInEvent": {
        "description": "The same, told by an attribute of the event.",
        "location": f"$message.payload#/{TRACEPARENT}",
    },
}
KEY: Final = "whatever suits the producer: it is kept, and decides nothing"
NO_HEADERS: Final = frozenset({"data", "datacontenttype"})
WRONG: Final = {
    f"{OWN}reason": "why it was not taken, in one stable word",
    f"{OWN}id": "the same for ever: whoever sees it twice knows by it",
    f"{OWN}timestamp": "when it was produced, in milliseconds since 1970, if it said so",
    f"{OWN}note": "what is not as it came, if anything",
    **dict.fromkeys((f"{CONNECT}{name}" for name in ("topic", "partition", "offset")), "where it lay"),
    f"{CONNECT}exception.message": "what was wrong, and what to do",
    f"{CONNECT}exception.class.name": "the reason as Kafka Connect would name a class",
    f"{CONNECT}connector.name": "the group id of the source",
    **dict.fromkeys((f"{CONNECT}{name}" for name in ("task.id", "stage", "class.name")), "the same in all of ours"),
}
"""Headers of a dead letter."""


def ref(part: str, name: str) -> Schema:
    """Return the reference to a component of the document."""
    return {"$ref": f"#/components/{part}/{name}"}


class Messages:
    """The messages, and the schemas that they refer to, gathered while the channels are described."""

    def __init__(self, pipelines: Sequence[str], *, given: bool) -> None:
        """Begin with none; `given` says that a topic may stand for the subject of its events."""
        self.messages: dict[str, Schema] = {}
        self.schemas: dict[str, Schema] = {}
        self._given = given
        self._subject: Schema = {**({"enum": list(pipelines)} if pipelines else TEXT), "description": "the pipeline"}

    def received(self, source: KafkaSettings, topic: TopicSettings) -> list[str]:
        """Return the names of the messages that a topic may carry to us."""
        kinds = [kind for kind in OUTSIDE_KINDS if source.operators or EVENTS[kind].origin != "operator"]
        names = [name for kind in kinds for name in (self._structured(kind), self._binary(kind))]
        return names if topic.mapping is None else [*names, self._mapped(source.name, topic, topic.mapping)]

    def told(self, kinds: Iterable[str]) -> list[str]:
        """Return the names of the messages by which we tell of what happened."""
        return [self._told(kind) for kind in kinds]

    def refused(self) -> list[str]:
        """Return the name of the message that a dead letter is."""
        self.messages["DeadLetter"] = {
            "name": "dead letter",
            "title": "What could not be accepted",
            "summary": "Key, value, headers and timestamp as they came; further headers say what was wrong.",
            "contentType": "application/octet-stream",
            "headers": {
                "type": "object",
                "properties": {name: {**TEXT, "description": meaning} for name, meaning in WRONG.items()},
                "required": [f"{OWN}reason", f"{OWN}id"],
            },
            "payload": {"description": "the value as it came, whatever it is"},
            "bindings": _bindings("the key as it came"),
        }
        return ["DeadLetter"]

    def _structured(self, kind: str) -> str:
        """Add an event that is one JSON."""
        return self._add(
            EVENTS[kind].__name__,
            kind,
            "In structured mode: attributes and data are one JSON.",
            contentType=STRUCTURED,
            headers={"type": "object", "properties": {CONTENT_TYPE: _media(STRUCTURED), TRACEPARENT: TRACE}},
            payload=self._envelope(kind),
            correlationId=ref("correlationIds", "traceInEvent"),
        )

    def _binary(self, kind: str) -> str:
        """Add an event whose attributes are headers."""
        envelope = self._attributes(kind)
        properties = {
            f"{PREFIX}{name}": each for name, each in properties_of(envelope).items() if name not in NO_HEADERS
        }
        return self._add(
            f"{EVENTS[kind].__name__}Binary",
            kind,
            "In binary mode: attributes are headers, the value is the data.",
            contentType=PLAIN,
            headers={
                "type": "object",
                "properties": {CONTENT_TYPE: _media(PLAIN), TRACEPARENT: TRACE, **properties},
                "required": [f"{PREFIX}{name}" for name in required_of(envelope) if name not in NO_HEADERS],
            },
            payload=self._data(kind),
            correlationId=ref("correlationIds", "traceInHeaders"),
        )

    def _mapped(self, source: str, topic: TopicSettings, mapping: MappingSettings) -> str:
        """Add the JSON of producers who know no CloudEvents."""
        self._data(mapping.kind)
        return self._add(
            f"{source}.{topic.name}",
            mapping.kind,
            "The producer's own JSON: by the topic's mapping it becomes an event.",
            contentType=PLAIN,
            headers={"type": "object", "properties": {CONTENT_TYPE: _media(PLAIN), TRACEPARENT: TRACE}},
            payload=mapped(mapping, topic, self.schemas[EVENTS[mapping.kind].__name__], self._subject),
            correlationId=ref("correlationIds", "traceInHeaders"),
        )

    def _told(self, kind: str) -> str:
        """Add an event that we tell others."""
        name = f"{EVENTS[kind].__name__}Told"
        envelope = self._attributes(kind)
        properties = {
            attribute: each for attribute, each in properties_of(envelope).items() if attribute != TRACEPARENT
        }
        self.schemas[name] = {
            **envelope,
            "properties": {
                **properties,
                "source": {"const": SOURCE},
                "position": {"type": "integer", "minimum": 1, "description": "the place in the journal"},
            },
            "required": ["specversion", "id", "source", "type", "time", "data", "position"],
        }
        return self._add(
            name,
            kind,
            "What is told twice has the same id.",
            key="the pipeline, so that what happens to one stays in order",
            contentType=STRUCTURED,
            headers={"type": "object", "properties": {CONTENT_TYPE: _media(STRUCTURED)}, "required": [CONTENT_TYPE]},
            payload=ref("schemas", name),
        )

    def _add(self, name: str, kind: str, mode: str, *, key: str = KEY, **parts: object) -> str:
        about = inspect.cleandoc(EVENTS[kind].__doc__ or "").partition("\n")[0]
        head = {"name": event_type(kind), "title": kind, "summary": f"{about} {mode}"}
        self.messages[name] = {**head, **parts, "bindings": _bindings(key)}
        return name

    def _data(self, kind: str) -> Schema:
        self.schemas |= {name: _plain(schema) for name, schema in event_components([kind], SCHEMAS).items()}
        return ref("schemas", EVENTS[kind].__name__)

    def _envelope(self, kind: str) -> Schema:
        name = f"{EVENTS[kind].__name__}Event"
        self.schemas[name] = self._attributes(kind)
        return ref("schemas", name)

    def _attributes(self, kind: str) -> Schema:
        """Return an envelope's schema, as narrow as the configuration makes it, and add that of its data."""
        self._data(kind)
        envelope = event_envelopes([kind], SCHEMAS)[kind]
        required = [name for name in required_of(envelope) if name != "subject" or not self._given]
        return {
            **envelope,
            "properties": {**properties_of(envelope), "subject": self._subject, TRACEPARENT: TRACE},
            "required": required,
        }


def _media(kind: str) -> Schema:
    return {**TEXT, "pattern": f"^{re.escape(kind)} *(;|$)"}


def _bindings(key: str) -> Schema:
    return {"kafka": {"key": {"description": key}, "bindingVersion": BINDING}}


def _plain(schema: Schema) -> Schema:
    """Leave out what OpenAPI alone knows: its `discriminator` is an object, AsyncAPI's a name."""
    return {key: _plain_part(part) for key, part in schema.items() if key != "discriminator"}


def _plain_part(part: object) -> object:
    if isinstance(part, list):
        return [_plain_part(each) for each in part]
    return _plain(part) if isinstance(part, dict) else part
