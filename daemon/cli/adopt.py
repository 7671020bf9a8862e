"""`rewarm adopt`: ask that a model which was trained elsewhere becomes a pipeline's first champion."""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, get_args, get_type_hints

from daemon.cli.delivery import requested
from daemon.cli.emit import send, waiting
from daemon.cli.output import warn
from daemon.cli.session import configured, pipeline_named
from daemon.core.errors import InputError
from daemon.core.events import OperatorRequested
from daemon.places import local_path

if TYPE_CHECKING:
    from daemon.cli.session import Commands

TRAINED_ON = get_args(get_type_hints(OperatorRequested)["trained_on"])
EPILOG = """FOLDER holds config.json, tokenizer.json and model.safetensors as rewarm writes them, such as
models/PIPELINE/v3 of another state folder, and lies below one of the configured roots.

examples:
  rewarm adopt docs-lm var/inbox/v3 --wait                   what is pending now is what it was trained on
  rewarm adopt docs-lm var/inbox/v3 --trained-on nothing     what is pending is new to it
"""


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "adopt",
        parents=[common],
        help="make a model that was trained elsewhere the first champion",
        description="Ask the daemon to take a model in as the first champion. It is copied, checked and evaluated.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pipeline", metavar="PIPELINE")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument(
        "--trained-on",
        choices=TRAINED_ON,
        default=TRAINED_ON[0],
        help=f"which arrivals the model has seen (default: {TRAINED_ON[0]})",
    )
    parser.add_argument("--reason", default="", help="why, for whoever reads it later")
    waiting(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Send the request; raises RewarmError for an unknown pipeline."""
    configuration = configured(arguments)
    pipeline = pipeline_named(configuration, arguments.pipeline)
    folder = arguments.folder.resolve()
    data = {"verb": "adopt", "model": folder.as_uri(), "trained_on": arguments.trained_on, "reason": arguments.reason}
    try:
        local_path(data["model"], configuration.all_roots)
        if not folder.is_dir():
            warn(f"Sent all the same, but as things are it would be refused: {folder} is no folder.")
    except InputError as error:
        warn(f"Sent all the same, but as things are it would be refused: {error}")
    return send(configuration, requested(data, pipeline=pipeline, now=datetime.now(UTC)), arguments)
