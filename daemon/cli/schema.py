"""`rewarm schema`: what whoever writes events or the configuration may write, and what Kafka carries."""

import argparse
from importlib.metadata import version
from typing import TYPE_CHECKING

from daemon.cli.output import show_json
from daemon.cli.session import configured

if TYPE_CHECKING:
    from daemon.cli.session import Commands


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "the JSON Schema of events or of the configuration, or an AsyncAPI document"
    parser = commands.add_parser(
        "schema",
        parents=[common],
        help=text,
        description="Print the JSON Schema of events or of the configuration, or the AsyncAPI 3.0 document of the "
        "configured Kafka sources: their clusters, topics and messages, without secrets.",
    )
    parser.add_argument("of", choices=("events", "configuration", "asyncapi"), help="what is described")
    parser.add_argument("--all", action="store_true", help="events: also those that rewarm alone tells")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print a schema; it is JSON with and without `--json`."""
    from daemon.core.events import EVENTS
    from daemon.door import OUTSIDE_KINDS
    from daemon.schema import configuration_schema, event_schema

    if arguments.of == "configuration":
        show_json(configuration_schema())
    elif arguments.of == "asyncapi":
        from daemon.schema.asyncapi import document

        show_json(document(version("rewarm"), configured(arguments)))
    else:
        show_json(event_schema(sorted(EVENTS) if arguments.all else OUTSIDE_KINDS))
    return 0
