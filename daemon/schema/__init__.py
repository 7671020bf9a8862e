"""JSON Schemas (draft 2020-12) made from the models that the code itself uses: of events and of the configuration.

A schema tells writers and editors what will be accepted; the decoders alone decide.
"""

import inspect
from collections.abc import Iterable
from typing import Final

import msgspec
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from daemon.core.encoding import type_of
from daemon.core.events import EVENTS
from daemon.door import MAX_NAME, OUTSIDE_KINDS, OWN_SOURCES

Schema = dict[str, object]
"""A JSON Schema, or a part of one: whatever JSON can say."""

TEXT: Final[Schema] = {"type": "string"}
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
DEFINITIONS: Final = "#/$defs/{name}"
"""Where a schema that stands by itself keeps its parts; an OpenAPI document says `#/components/schemas/{name}`."""


def properties_of(schema: Schema) -> dict[str, Schema]:
    """Return the properties of an object's schema."""
    found = schema.get("properties")
    return found if isinstance(found, dict) else {}


def required_of(schema: Schema) -> list[str]:
    """Return the properties that an object must have."""
    found = schema.get("required")
    return found if isinstance(found, list) else []


def event_type(kind: str) -> str:
    """Return the CloudEvents `type` of a kind at its current version."""
    return type_of(kind, EVENTS[kind].version)


def event_components(kinds: Iterable[str] = OUTSIDE_KINDS, template: str = DEFINITIONS) -> dict[str, Schema]:
    """Return the schemas of the kinds' data by the names of their classes, with everything that they refer to."""
    return components_of([EVENTS[kind] for kind in kinds], template)


def components_of(types: Iterable[type[msgspec.Struct]], template: str = DEFINITIONS) -> dict[str, Schema]:
    """Return the schemas of types by their names, with everything that they refer to; descriptions without margin."""
    _, components = msgspec.json.schema_components(types, ref_template=template)
    for component in components.values():
        if "description" in component:
            component["description"] = inspect.cleandoc(component["description"])
    return components


def event_envelopes(kinds: Iterable[str] = OUTSIDE_KINDS, template: str = DEFINITIONS) -> dict[str, Schema]:
    """Return the schema of each kind's CloudEvents envelope in structured mode; data refers to `event_components`."""
    return {kind: _envelope(kind, template) for kind in kinds}


def event_schema(kinds: Iterable[str] = OUTSIDE_KINDS) -> Schema:
    """Return one schema for an envelope of any of the kinds; a part is named like the `type` that it describes."""
    chosen = tuple(kinds)
    envelopes = {event_type(kind): schema for kind, schema in event_envelopes(chosen).items()}
    return {
        "$schema": DIALECT,
        "title": "Events of rewarm",
        "description": "CloudEvents 1.0 in structured mode.",
        "oneOf": [{"$ref": DEFINITIONS.format(name=name)} for name in envelopes],
        "$defs": {**envelopes, **event_components(chosen)},
    }


def configuration_schema() -> Schema:
    """Return the schema of the configuration file."""
    from daemon.settings import Settings

    schema = Settings.model_json_schema(schema_generator=_ConfigurationSchema)
    return {"$schema": DIALECT, **schema, "title": "Configuration of rewarm"}


def _envelope(kind: str, template: str) -> Schema:
    cls = EVENTS[kind]
    outside = kind in OUTSIDE_KINDS
    text: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_NAME}
    source: Schema = {**text, "not": {"pattern": f"^{OWN_SOURCES}"}} if outside else text
    # A request about a dead letter needs no pipeline, and what the daemon tells of itself has none.
    required = ["specversion", "id", "source", "type", "data"]
    if outside and cls.origin != "operator":
        required.append("subject")
    return {
        "title": event_type(kind),
        "description": inspect.cleandoc(cls.__doc__ or ""),
        "type": "object",
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {**text, "description": "unique for ever within its source"},
            "source": {**source, "description": "who tells it"},
            "type": {"const": event_type(kind)},
            "subject": {"type": "string", "description": "the pipeline"},
            "time": {"type": "string", "format": "date-time", "description": "when it happened; with a zone"},
            "datacontenttype": {"type": "string", "description": "application/json"},
            "data": {"$ref": template.format(name=cls.__name__)},
        },
        "required": required,
    }


class _ConfigurationSchema(GenerateJsonSchema):
    """What pydantic says of a model, as it suits a file that people write."""

    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> JsonSchemaValue:
        """A duration may also be written as days and a time, or as a number of seconds."""
        return {"type": ["string", "number"], "examples": ["P7D", "PT12H"]}

    def field_title_should_be_set(self, schema: object) -> bool:
        """Keys speak for themselves: a title would only repeat them."""
        return False
