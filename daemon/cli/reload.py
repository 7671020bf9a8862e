"""`rewarm reload`: the daemon reads its configuration file again; the file is checked here first."""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from daemon.cli.delivery import Answer, Delivered, requested
from daemon.cli.emit import Sent, dispatch, sending
from daemon.cli.output import show_json, write
from daemon.cli.session import configured, find_daemon, perhaps_reading
from daemon.config import Configuration
from daemon.core.errors import RewarmError
from daemon.core.events import ConfigurationChanged, OperatorRequested

if TYPE_CHECKING:
    from daemon.cli.session import Commands

EPILOG = """Taken at once: `pipelines` (policies, stages, model, data, priority, mode) and `executor.slots`.
Everything else needs a restart: what of it differs is named, and nothing of it is taken.
The same is `kill -HUP` to the daemon.
"""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `--json`: whether the daemon now has another configuration, and what of the file it has not."""

    event: Delivered
    answer: Answer | None
    changed: bool | None = None
    needs_restart: tuple[str, ...] = ()


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "reload",
        parents=[common],
        help="let the daemon read its configuration file again",
        description="Check the configuration file, and let the daemon read it again.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--reason", default="", help="why, for whoever reads it later")
    sending(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask for it, and tell what came of it; 1 when the daemon could not. Raises RewarmError for a broken file."""
    configuration = configured(arguments)
    if not find_daemon(configuration.journal).running:
        raise RewarmError(
            f"No daemon writes {configuration.journal}: the next one reads the file when it starts (`rewarm serve`)."
        )
    event = requested({"verb": "reload", "reason": arguments.reason}, now=datetime.now(UTC))
    sent = dispatch(configuration, event, arguments, wait=arguments.timeout)
    changed, left = _outcome(configuration, sent)
    if arguments.json:
        show_json(Result(event=sent.delivered, answer=sent.answer, changed=changed, needs_restart=left))
    else:
        for line in _sentences(sent, left, changed=changed):
            write(line)
    return 0 if sent.answer is not None and sent.answer.outcome == "accepted" else 1


def _outcome(configuration: Configuration, sent: Sent) -> tuple[bool | None, tuple[str, ...]]:
    """Return whether the configuration changed, and the keys that need a restart; None: it is not known."""
    answer = sent.answer
    if answer is None or answer.outcome != "accepted" or answer.position is None:
        return None, ()
    with perhaps_reading(configuration) as reader:
        found = reader.records(answer.position - 1, 2) if reader is not None else []
    request = found[0].event if found else None
    if not isinstance(request, OperatorRequested):
        return None, ()
    changed = any(isinstance(each.event, ConfigurationChanged) and each.cause == answer.position for each in found)
    return changed, request.needs_restart


def _sentences(sent: Sent, left: Sequence[str], *, changed: bool | None) -> list[str]:
    answer = sent.answer
    if answer is None or answer.outcome == "waiting":
        return [f"In the spool, and not in the journal yet: {sent.delivered.file}"]
    if answer.outcome != "accepted":
        return [f"Refused ({answer.reason}), kept as dead letter at position {answer.position}: {answer.message}"]
    told = "the configuration has changed" if changed else "the configuration is what it was"
    restart = [f"Needs a restart, and is as it was: {', '.join(left)}."] if left else []
    return [f"Read again at position {answer.position}: {told}.", *restart]
