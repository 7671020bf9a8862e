"""JSON of a producer who knows no CloudEvents, as an event: by the paths and constants that are configured."""

from functools import lru_cache

import msgspec

from daemon.core.errors import InputError
from daemon.core.events import EVENTS
from daemon.settings.kafka import MappingSettings, TopicSettings

SHOWN = 200
"""Characters of what was found instead."""


class _Missing:
    """No value is there; null is none either."""


MISSING = _Missing()


def mapped(value: bytes, mapping: MappingSettings, topic: TopicSettings) -> bytes | None:
    """Return the text for the door that a JSON makes, None when it is a CloudEvent already.

    What an event can do without may be missing; a constant stands in where its field's path leads nowhere.
    Raises InputError: malformed, or not_mappable, which names the path and shows what was there.
    """
    try:
        document = msgspec.json.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError("malformed", f"The value is no JSON: {error}.") from error
    if isinstance(document, dict) and "specversion" in document:
        return None
    needed = _needed(mapping.kind)
    data: dict[str, object] = dict(mapping.constants)
    for field, path in mapping.data.items():
        found = _at(document, path)
        if found is not MISSING:
            data[field] = found
        elif field in needed and field not in data:
            raise _nowhere(document, path, f"the field {field} of {mapping.kind}", topic)
    event: dict[str, object] = {"type": mapping.kind, "data": data}
    if mapping.id is not None:
        event["id"] = _word(document, mapping.id, "the id", topic)
    if mapping.pipeline is not None and (topic.pipeline is None or _at(document, mapping.pipeline) is not MISSING):
        event["subject"] = _word(document, mapping.pipeline, "the pipeline", topic)
    if mapping.time is not None and _at(document, mapping.time) is not MISSING:
        event["time"] = _word(document, mapping.time, "the time", topic)
    return msgspec.json.encode(event)


def _at(document: object, path: str) -> object:
    """Return what lies at a path; a number in it counts the items of an array."""
    found = document
    for step in path.split("."):
        match found:
            case dict():
                found = found.get(step)
            case list() if step.isdecimal() and len(step) < 10 and int(step) < len(found):  # noqa: PLR2004 - no index is longer
                found = found[int(step)]
            case _:
                return MISSING
    return MISSING if found is None else found


def _word(document: object, path: str, meaning: str, topic: TopicSettings) -> str:
    """Return the text or the whole number at a path as text."""
    found = _at(document, path)
    if found is MISSING:
        raise _nowhere(document, path, meaning, topic)
    if isinstance(found, str) and found:
        return found
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    message = (
        f"By the mapping of topic {topic.name} {meaning} is at {path!r}: there is {_shown(found)}, which is no text."
    )
    raise InputError("not_mappable", message)


def _nowhere(document: object, path: str, meaning: str, topic: TopicSettings) -> InputError:
    """Return the error for a path that leads nowhere, with the last thing that was on it."""
    begun, last = "", document
    for step in path.split("."):
        found = _at(last, step)
        if found is MISSING:
            break
        begun, last = f"{begun}.{step}" if begun else step, found
    where = f"at {begun!r} there is" if begun else "the message is"
    message = (
        f"By the mapping of topic {topic.name} {meaning} is at {path!r}, which is not there: {where} {_shown(last)}."
    )
    return InputError("not_mappable", message)


def _shown(found: object) -> str:
    text = msgspec.json.encode(found).decode()
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


@lru_cache(maxsize=64)
def _needed(kind: str) -> frozenset[str]:
    """Return the fields that an event of a kind cannot do without."""
    return frozenset(field.encode_name for field in msgspec.structs.fields(EVENTS[kind]) if field.required)
