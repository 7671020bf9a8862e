"""`rewarm schema`."""

import json
from typing import TYPE_CHECKING

import pytest

from daemon.core.events import EVENTS
from daemon.door import OUTSIDE_KINDS
from daemon.schema import configuration_schema, event_type

if TYPE_CHECKING:
    from tests.daemon.cli.conftest import Command


def test_schemas_are_printed(rewarm: "Command") -> None:
    """Events are those that may be sent, with --all every kind; the configuration is the loader's own."""
    outside = json.loads(rewarm("schema", "events").out)
    every = json.loads(rewarm("schema", "events", "--all").out)
    assert {ref["$ref"].removeprefix("#/$defs/") for ref in outside["oneOf"]} == set(map(event_type, OUTSIDE_KINDS))
    assert {ref["$ref"].removeprefix("#/$defs/") for ref in every["oneOf"]} == set(map(event_type, EVENTS))
    assert json.loads(rewarm("schema", "configuration", "--json").out) == configuration_schema()


def test_it_must_be_said_of_what(rewarm: "Command") -> None:
    """Anything else is a mistake in the arguments."""
    with pytest.raises(SystemExit):
        rewarm("schema", "moon")
