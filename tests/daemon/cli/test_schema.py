"""`rewarm schema`."""

import json
import re
from typing import TYPE_CHECKING

import pytest

from daemon.core.events import EVENTS
from daemon.door import OUTSIDE_KINDS
from daemon.schema import configuration_schema, event_type

if TYPE_CHECKING:
    from daemon.config import Configuration
    from tests.daemon.cli.conftest import Command


def test_schemas_are_printed(rewarm: "Command") -> None:
    """Events are those that may be sent, with --all every kind; the configuration is the loader's own."""
    outside = json.loads(rewarm("schema", "events").out)
    every = json.loads(rewarm("schema", "events", "--all").out)
    assert {ref["$ref"].removeprefix("#/$defs/") for ref in outside["oneOf"]} == set(map(event_type, OUTSIDE_KINDS))
    assert {ref["$ref"].removeprefix("#/$defs/") for ref in every["oneOf"]} == set(map(event_type, EVENTS))
    assert json.loads(rewarm("schema", "configuration", "--json").out) == configuration_schema()


def test_what_kafka_carries_is_printed(rewarm: "Command", configuration: "Configuration") -> None:
    """The AsyncAPI document is that of the configured sources; without one the exit code is that of a mistake."""
    assert configuration.file is not None
    assert rewarm("schema", "asyncapi").code == 2
    settings = configuration.file.read_text(encoding="utf-8")
    kafka = "sources: [{kind: kafka, bootstrap_servers: [a:9092], topics: [facts]}]\n"
    configuration.file.write_text(re.sub(r"^sources: .*\n", kafka, settings, flags=re.MULTILINE), encoding="utf-8")
    described = json.loads(rewarm("schema", "asyncapi").out)
    assert described["asyncapi"] == "3.0.0"
    assert set(described["channels"]) == {"kafka.facts", "kafka.rewarm.dlq"}


def test_it_must_be_said_of_what(rewarm: "Command") -> None:
    """Anything else is a mistake in the arguments."""
    with pytest.raises(SystemExit):
        rewarm("schema", "moon")
