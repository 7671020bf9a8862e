"""Events as JSON and back, with upcasters for versions that are no longer written."""

from collections.abc import Callable, Mapping

import msgspec

from daemon.core.errors import EventError
from daemon.core.events import EVENTS, AnyEvent

Upcaster = Callable[[dict[str, object]], dict[str, object]]
UPCASTERS: Mapping[tuple[str, int], Upcaster] = {}
"""(kind, version) → the data of the next version; a stored event is lifted step by step."""

_encoder = msgspec.json.Encoder()
_decoders = {kind: msgspec.json.Decoder(cls) for kind, cls in EVENTS.items()}


def type_of(kind: str, version: int) -> str:
    """Return the `type` under which CloudEvents carry a kind of event."""
    return f"io.rewarm.{kind}.v{version}"


def encode(event: AnyEvent) -> bytes:
    """Return an event's data as JSON."""
    return _encoder.encode(event)


def decode(
    kind: str, version: int, data: bytes | str, upcasters: Mapping[tuple[str, int], Upcaster] = UPCASTERS
) -> AnyEvent:
    """Return the event in `data`, lifted to the version that this release knows.

    Raises EventError for an unknown kind, a version from the future, or data that does not fit.
    """
    cls = EVENTS.get(kind)
    if cls is None:
        message = f"Event kind {kind!r} is not known; known kinds: {', '.join(sorted(EVENTS))}."
        raise EventError(message)
    if version > cls.version:
        message = f"{kind} has version {version}, this rewarm knows versions up to {cls.version}: upgrade rewarm."
        raise EventError(message)
    try:
        if version == cls.version:
            return _decoders[kind].decode(data)
        fields = msgspec.json.decode(data, type=dict[str, object])
        for old in range(version, cls.version):
            fields = upcasters[kind, old](fields)
        return msgspec.convert(fields, cls)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        message = f"{kind} version {version}: {error}."
        raise EventError(message) from error
    except KeyError as error:
        message = f"{kind} has no upcaster from version {error.args[0][1]}; known versions: {cls.version}."
        raise EventError(message) from error
