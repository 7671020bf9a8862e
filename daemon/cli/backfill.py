"""`rewarm backfill`: the arrivals of a period shall be used again, as if they were new."""

import argparse
from contextlib import suppress
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING

from daemon.cli.delivery import requested
from daemon.cli.emit import send, waiting
from daemon.cli.session import configured, pipeline_named
from daemon.core.errors import RewarmError

if TYPE_CHECKING:
    from daemon.cli.session import Commands

EPILOG = """The period is when the arrivals were recorded, the end left out; a date alone is its midnight in UTC.
What is pending, withdrawn, or of a run that lives is left as it is.

examples:
  rewarm backfill docs-lm --from 2026-03-01 --to 2026-03-08 --reason "the rate was too low"
  rewarm backfill docs-lm --from 2026-03-01T09:30:00Z --to 2026-03-01T12:00:00Z --wait
"""


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "backfill",
        parents=[common],
        help="let the arrivals of a period be used again",
        description="Ask the daemon to make the arrivals of a period pending again.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pipeline", metavar="PIPELINE")
    parser.add_argument("--from", dest="since", required=True, metavar="T", help="the first instant of the period")
    parser.add_argument("--to", dest="until", required=True, metavar="T", help="the first instant after it")
    parser.add_argument("--reason", default="", help="why, for whoever reads it later")
    waiting(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Send the request; raises RewarmError for an unknown pipeline, and for a period that is none."""
    configuration = configured(arguments)
    pipeline = pipeline_named(configuration, arguments.pipeline)
    since, until = instant(arguments.since), instant(arguments.until)
    if since >= until:
        raise RewarmError(f"The period from {arguments.since} to {arguments.until} is empty: it has to end later.")
    data = {"verb": "backfill", "since": since, "until": until, "reason": arguments.reason}
    return send(configuration, requested(data, pipeline=pipeline, now=datetime.now(UTC)), arguments)


def instant(text: str) -> datetime:
    """Return the instant that a text names; raises RewarmError for any other text."""
    with suppress(ValueError):
        return datetime.combine(date.fromisoformat(text), time(), UTC)
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is not None:
            at.astimezone(UTC)  # raises for the first and the last hours of the calendar
            return at
    except (ValueError, OverflowError) as error:
        raise RewarmError(f"{text!r} is no instant: write it as 2026-03-01 or 2026-03-01T12:00:00Z.") from error
    raise RewarmError(f"The instant {text!r} has no zone; add Z or an offset such as +01:00.")
