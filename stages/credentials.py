"""The file of a root's credentials: a JSON object of fsspec's storage options, read anew each time."""

import re
from pathlib import Path

import msgspec

from daemon.core.errors import ConfigurationError
from daemon.files import open_to_all

Options = dict[str, object]
"""Storage options, which are whatever the library of the protocol takes."""
SECRET = ("secret", "key", "token", "pass", "sas", "authorization", "cookie", "credential", "connection_string")
PARTS = re.compile(r"(?:^|[\s;]+)(?:\w+=(?=[^=]))?")
"""Between the parts of a value of which each is secret: "Bearer …", "…;AccountKey=…"."""
SHORTEST = 4
HIDDEN = "***"


def read_credentials(file: Path) -> Options:
    """Return the storage options in a file; raises ConfigurationError, which shows none of them."""
    try:
        if (wrong := open_to_all(file)) is not None:
            raise ConfigurationError(f"credentials: {wrong}")
        data = file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"credentials: {file} cannot be read: {error.strerror}.") from None
    try:
        return msgspec.json.decode(data, type=Options)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        message = f'credentials: {file} is no JSON object of storage options, such as {{"key": …, "secret": …}}.'
        raise ConfigurationError(message) from None


def without_secrets(text: str, options: Options) -> str:
    """Return a text in which no secret of these options stands."""
    for secret in sorted(_secrets(options, hidden=False), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def _secrets(value: object, *, hidden: bool) -> set[str]:
    match value:
        case dict():
            named = ((each, hidden or any(word in str(key).lower() for word in SECRET)) for key, each in value.items())
            return {secret for each, inside in named for secret in _secrets(each, hidden=inside)}
        case list():
            return {secret for each in value for secret in _secrets(each, hidden=hidden)}
        case str() if hidden and len(value) >= SHORTEST:
            return {value, *(part for part in PARTS.split(value) if len(part) > 2 * SHORTEST)}
        case _:
            return set()
