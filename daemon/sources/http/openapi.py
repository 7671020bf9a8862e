"""What HTTP promises, as OpenAPI 3.1: the events and answers are described by the models that the code uses."""

from collections.abc import Sequence
from typing import Final

import msgspec

from daemon.schema import (
    Schema,
    components_of,
    event_components,
    event_envelopes,
    event_type,
    properties_of,
    required_of,
)
from daemon.sources.cloudevents import BATCH, PLAIN, STRUCTURED
from daemon.sources.http.answers import Problem
from daemon.sources.http.events import AllRefused, Outcome, Outcomes, Refusal
from daemon.sources.http.modes import MAX_BATCH
from daemon.sources.http.reading import MOST_RUNS, USUAL_RUNS
from daemon.sources.http.runs import Listed
from daemon.story import Story

REF: Final = "#/components/schemas/{name}"
JSON: Final = "application/json"
TEXT: Final = "text/plain"
ANSWERS: Final[tuple[type[msgspec.Struct], ...]] = (Problem, Outcome, Refusal, Outcomes, AllRefused, Listed, Story)


def document(release: str, pipelines: Sequence[str]) -> Schema:
    """Return the document; the subjects of events are the configured pipelines."""
    envelopes = event_envelopes(template=REF)
    names = {kind: "".join(word.title() for word in kind.replace("_", ".").split(".")) + "Event" for kind in envelopes}
    for envelope in envelopes.values():
        _narrow(envelope, pipelines)
    event: Schema = {
        "oneOf": [_ref(name) for name in names.values()],
        "discriminator": {
            "propertyName": "type",
            "mapping": {event_type(kind): _ref(name)["$ref"] for kind, name in names.items()},
        },
    }
    schemas = {"Event": event, **{names[kind]: schema for kind, schema in envelopes.items()}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "rewarm", "version": release or "0", "description": "It keeps models fresh."},
        "paths": {
            "/events": {"post": _events()},
            "/state": {"get": _read("The state: the fold of the whole journal.", {"type": "object"})},
            "/runs": {"get": _runs()},
            "/runs/{run}": {"get": _story()},
            "/openapi.json": {"get": _open("This document.", JSON, {"type": "object"})},
            "/livez": {"get": _health("Whether the daemon lives: its loop beats.")},
            "/readyz": {"get": _health("Whether the daemon takes events.")},
            "/metrics": {"get": _open("Metrics for Prometheus.", TEXT, {"type": "string"})},
        },
        "components": {
            "schemas": {**schemas, **event_components(template=REF), **components_of(ANSWERS, REF)},
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of the configuration, with the scope that the operation names. Where none "
                    "is configured and only this machine can ask, whoever shows none may send and read.",
                }
            },
        },
    }


def _narrow(envelope: Schema, pipelines: Sequence[str]) -> None:
    """Let an envelope's subject be a configured pipeline, and the envelope be plain JSON as well."""
    properties = properties_of(envelope)
    if pipelines:
        properties["subject"] = {"enum": list(pipelines), "description": "the pipeline"}
    del properties["datacontenttype"]  # it is not read: the data is JSON
    for name in ("specversion", "id", "source", "time"):  # null, and for a name "", is as good as nothing
        given = {key: value for key, value in properties[name].items() if key != "minLength"}
        properties[name] = {"anyOf": [given, {"type": "null"}]}
    envelope["required"] = [name for name in required_of(envelope) if name not in {"specversion", "id", "source"}]
    envelope["dependentRequired"] = {"specversion": ["id", "source"]}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": REF.format(name=name)}


def _events() -> Schema:
    one, batch = _ref("Event"), {"type": "array", "maxItems": MAX_BATCH, "items": _ref("Event")}
    outcome = {"anyOf": [_ref("Outcome"), _ref("Outcomes")]}
    refused = {"anyOf": [_ref("Refusal"), _ref("AllRefused"), _ref("Problem")]}
    single = {"anyOf": [_ref("Refusal"), _ref("Problem")]}
    return {
        "summary": "Send events",
        "description": "CloudEvents 1.0: one in structured mode, one in binary mode (its attributes as `ce-` headers, "
        "its data as the body), or a batch. 202 means that the journal has them; sent again, they count once.",
        "operationId": "sendEvents",
        "security": [{"token": ["send"]}, {"token": ["operate"]}, {}],
        "parameters": [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "description": "Stands for the id of events that have none and are no CloudEvents; in a batch it gets "
                "a colon and the event's number.",
                "schema": {"type": "string", "pattern": "^[!-~]{0,256}$"},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {STRUCTURED: {"schema": one}, BATCH: {"schema": batch}, PLAIN: {"schema": one}},
        },
        "responses": {
            "202": _answer("Everything counted, now or before.", outcome),
            "207": _answer("A batch of which some counted; the others are dead letters.", _ref("Outcomes")),
            "400": _answer("Nothing counted: dead letters, or a request that is none.", refused),
            "403": _answer("The token's holder may not send this.", single),
            "408": _answer("The body came too slowly.", _ref("Problem")),
            "409": _answer("The id was used before, with other content.", _ref("Refusal")),
            "413": _answer("The event or the batch is too large.", single),
            "415": _answer("No form of an event that is known.", _ref("Problem")),
            "429": _answer("Too much at once; the same may be sent again.", _ref("Problem"), retry=True),
            "503": _answer("No events are taken now; the same may be sent again.", _ref("Problem"), retry=True),
            **_refusals(),
        },
    }


def _read(summary: str, schema: object, **responses: object) -> Schema:
    return {
        "summary": summary,
        "security": [{"token": ["read"]}, {}],
        "responses": {
            "200": _answer(summary, schema),
            "403": _answer("The token's holder may not read.", _ref("Problem")),
            "503": _answer("The journal cannot be read now.", _ref("Problem"), retry=True),
            **_refusals(),
            **responses,
        },
    }


def _runs() -> Schema:
    limit = {"type": "integer", "minimum": 1, "maximum": MOST_RUNS, "default": USUAL_RUNS}
    wrong = _answer("The limit is none.", _ref("Problem"))
    read = _read("The latest runs and those that live, newest first.", _ref("Listed"), **{"400": wrong})
    return {**read, "parameters": [{"name": "limit", "in": "query", "required": False, "schema": limit}]}


def _story() -> Schema:
    unknown = _answer("There is no such run.", _ref("Problem"))
    read = _read("A run's story: what `rewarm explain RUN --json` tells.", _ref("Story"), **{"404": unknown})
    run = {"type": "string", "minLength": 1, "pattern": "^[^/]+$"}
    return {**read, "parameters": [{"name": "run", "in": "path", "required": True, "schema": run}]}


def _open(summary: str, kind: str, schema: object) -> Schema:
    return {
        "summary": summary,
        "security": [],
        "responses": {"200": {"description": summary, "content": {kind: {"schema": schema}}}},
    }


def _health(summary: str) -> Schema:
    content = {TEXT: {"schema": {"type": "string"}}}
    verbose = {"name": "verbose", "in": "query", "required": False, "schema": {"type": "string"}}
    return {
        "summary": summary,
        "security": [],
        "parameters": [{**verbose, "description": "with this, however it is set, every check is listed"}],
        "responses": {
            "200": {"description": "Yes.", "content": content},
            "503": {"description": "No, and why not.", "content": content},
        },
    }


def _refusals() -> Schema:
    challenge = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    return {"401": {**_answer("No token, or none that counts.", _ref("Problem")), "headers": challenge}}


def _answer(description: str, schema: object, *, retry: bool = False) -> Schema:
    answer: Schema = {"description": description, "content": {JSON: {"schema": schema}}}
    after = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
    return {**answer, "headers": after} if retry else answer
