"""`rewarm request`: ask for something as a person; whose request it is the token says, or the spool file's owner."""

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from daemon.cli.delivery import requested
from daemon.cli.emit import send, waiting
from daemon.cli.session import configured, pipeline_named
from daemon.core.errors import RewarmError

if TYPE_CHECKING:
    from daemon.cli.session import Commands

MEANINGS = {
    "pause": "start nothing new",
    "resume": "end a pause",
    "train": "train on what waits, whatever triggers and guards say",
    "retrain": "train again on everything, whatever triggers and guards say",
    "promote": "promote the held candidate, whatever its numbers",
    "rollback": "make the previous champion the champion again",
    "cancel": "end a run",
    "approve": "let the held candidate be promoted if it still keeps its bounds; --decision: let a start happen",
    "accept": "use the arrivals of a rejected candidate again (--run)",
    "withdraw": "forget the arrivals of a rejected candidate (--run)",
    "retry": "try the data of a failed run again",
    "freeze": "promote no candidate; each is held",
    "thaw": "end a freeze",
}
ELSEWHERE = {
    "adopt": "rewarm adopt PIPELINE FOLDER",
    "align": "rewarm align --set TOPIC=beginning",
    "drop": "rewarm dead-letters drop POSITION",
    "backfill": "rewarm backfill PIPELINE --from T --to T",
    "reload": "rewarm reload",
}
"""Verbs that need other things than a pipeline and a run: the command that asks for them."""


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "ask for something: " + ", ".join(MEANINGS)
    parser = commands.add_parser(
        "request",
        parents=[common],
        help=text,
        description="Ask the daemon for something. What is asked, by whom and what came of it is recorded.",
        epilog="verbs:\n" + "\n".join(f"  {verb:9} {meaning}" for verb, meaning in MEANINGS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", metavar="VERB")
    parser.add_argument("pipeline", metavar="PIPELINE")
    parser.add_argument("--run", dest="about", metavar="RUN", help="the run that is meant")
    parser.add_argument(
        "--decision", type=int, metavar="POSITION", help="approve: the decision awaiting_approval that is meant"
    )
    parser.add_argument("--reason", default="", help="why, for whoever reads it later")
    waiting(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Send the request; raises RewarmError for an unknown verb or pipeline."""
    if arguments.verb in ELSEWHERE:
        raise RewarmError(f"{arguments.verb!r} has a command of its own: {ELSEWHERE[arguments.verb]}.")
    if arguments.verb not in MEANINGS:
        raise RewarmError(f"There is no request {arguments.verb!r}. Known: {', '.join(MEANINGS)}.")
    if arguments.decision is not None and arguments.verb != "approve":
        raise RewarmError(f"--decision names the start that approve is about; {arguments.verb} has none.")
    configuration = configured(arguments)
    pipeline = pipeline_named(configuration, arguments.pipeline)
    data = {"verb": arguments.verb, "reason": arguments.reason, "run": arguments.about}
    if arguments.decision is not None:
        data["decision"] = arguments.decision
    return send(configuration, requested(data, pipeline=pipeline, now=datetime.now(UTC)), arguments)
