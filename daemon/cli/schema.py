"""`rewarm schema`: JSON Schemas for whoever writes events or the configuration."""

import argparse
from typing import TYPE_CHECKING

from daemon.cli.output import show_json

if TYPE_CHECKING:
    from daemon.cli.session import Commands


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "the JSON Schema of events or of the configuration"
    parser = commands.add_parser("schema", parents=[common], help=text, description=f"Print {text}.")
    parser.add_argument("of", choices=("events", "configuration"), help="what is described")
    parser.add_argument("--all", action="store_true", help="events: also those that rewarm alone tells")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print a schema; it is JSON with and without `--json`."""
    from daemon.core.events import EVENTS
    from daemon.door import OUTSIDE_KINDS
    from daemon.schema import configuration_schema, event_schema

    if arguments.of == "configuration":
        show_json(configuration_schema())
    else:
        show_json(event_schema(sorted(EVENTS) if arguments.all else OUTSIDE_KINDS))
    return 0
