"""The shape of a producer's own JSON, as far as a topic's mapping looks into it."""

from collections.abc import Iterable

from daemon.schema import TEXT, Schema, properties_of, required_of
from daemon.settings.kafka import MappingSettings, TopicSettings

Leaf = tuple[str, Schema, bool]
"""A path into a JSON, what lies there, and whether something must."""


def mapped(mapping: MappingSettings, topic: TopicSettings, data: Schema, subject: Schema) -> Schema:
    """Return the schema of what a mapping makes an event of; `data` and `subject` are those of the event."""
    fields, needed = properties_of(data), {*required_of(data)} - {*mapping.constants}
    leaves = [(path, fields.get(field, {}), field in needed) for field, path in mapping.data.items()]
    if mapping.pipeline is not None:
        leaves.append((mapping.pipeline, subject, topic.pipeline is None))
    if mapping.id is not None:
        leaves.append((mapping.id, {"type": ["string", "integer"], "description": "unique for ever"}, True))
    if mapping.time is not None:
        leaves.append((mapping.time, {**TEXT, "format": "date-time"}, False))
    return shape(leaves)


def shape(leaves: Iterable[Leaf]) -> Schema:
    """Return the schema of a JSON with something at the end of paths; what an array holds is left open."""
    properties: dict[str, Schema] = {}
    inside: dict[str, list[Leaf]] = {}
    required: list[str] = []
    for path, leaf, needed in leaves:
        first, _, rest = path.partition(".")
        if first.isdecimal():
            return {}
        if rest:
            inside.setdefault(first, []).append((rest, leaf, needed))
        else:
            properties[first] = {"allOf": [properties[first], leaf]} if first in properties else leaf
        if needed and first not in required:
            required.append(first)
    properties |= {name: shape(parts) for name, parts in inside.items()}
    return {"type": "object", "properties": properties, "required": required}
