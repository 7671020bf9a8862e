"""`rewarm dead-letters`: what could not be accepted, byte for byte, and what a person wants done about it."""

import argparse
import sys
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import msgspec

from daemon import dead_letters
from daemon.cli.delivery import CloudEvent, requested
from daemon.cli.emit import Sent, dispatch, sending
from daemon.cli.letters import described, fate, line, printable, readable, row, whole
from daemon.cli.output import count, facts, lines, show, show_json, warn, write
from daemon.cli.session import configured, find_daemon, perhaps_reading, reading
from daemon.config import Configuration
from daemon.core.errors import RewarmError
from daemon.core.events import InputRejected
from daemon.dead_letters import DeadLetter, Outcome, Settled
from daemon.journal.base import Reader

if TYPE_CHECKING:
    from daemon.cli.session import Commands

LAST = 50
STRANGERS = "not_an_operator"
EXAMPLES = """examples:
  rewarm dead-letters list --reason outside_roots
  rewarm dead-letters show 41
  rewarm dead-letters retry 41 42 --because "the root is mended"
  rewarm dead-letters retry --reason file_missing --yes
  rewarm dead-letters drop --all --pipeline docs-lm
"""
Verb = Literal["retry", "drop"]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one request: `settled`, or the reason why it was refused; neither while it waits in the spool."""

    position: int
    outcome: Outcome | Literal["not_settled", "waiting"]
    settled: Settled | None = None
    reason: str = ""
    message: str = ""


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "what could not be accepted: list it, show it, retry it, drop it"
    parser = commands.add_parser(
        "dead-letters",
        parents=[common],
        help=text,
        description="List, show, retry or drop inputs that were refused and arrivals that could not be used.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", title="actions", required=True)
    listing = actions.add_parser("list", parents=[common], help="the open ones, the newest last")
    listing.add_argument("--all", action="store_true", help="also those that were retried or dropped")
    _choosing(listing)
    listing.add_argument("--limit", type=int, default=LAST, metavar="N", help=f"at most so many (default: {LAST})")
    listing.set_defaults(run=_list)
    showing = actions.add_parser("show", parents=[common], help="one of them: its bytes, origin, reason, and its fate")
    showing.add_argument("position", type=int, metavar="POSITION")
    showing.add_argument("--raw", action="store_true", help="nothing but the bytes, as they were received")
    showing.set_defaults(run=_show)
    meanings: dict[Verb, str] = {
        "retry": "send inputs through the door again, or make refused arrivals pending again",
        "drop": "settle them without a retry; they stay in the journal",
    }
    for verb, meaning in meanings.items():
        action = actions.add_parser(verb, parents=[common], help=meaning)
        action.add_argument("positions", type=int, nargs="*", metavar="POSITION")
        action.add_argument("--all", action="store_true", help="every open one")
        _choosing(action)
        action.add_argument("--because", default="", metavar="TEXT", help="why, for whoever reads it later")
        action.add_argument("--yes", action="store_true", help="do not ask before several are settled at once")
        sending(action)
        action.set_defaults(run=_settle, verb=verb)


def _choosing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", metavar="R", help="only of this reason, such as file_missing")
    parser.add_argument("--pipeline", metavar="P", help="only of this pipeline")


def _list(arguments: argparse.Namespace) -> int:
    if arguments.limit < 1:
        raise RewarmError(f"--limit must be at least 1, it is {arguments.limit}.")
    with perhaps_reading(configured(arguments)) as reader:
        found = [] if reader is None else list(_chosen(reader, arguments, settled=arguments.all))
    shown = found[-arguments.limit :]
    if arguments.json:
        unsettled = sum(letter.settled is None for letter in found)
        show_json({"dead_letters": [line(letter) for letter in shown], "found": len(found), "open": unsettled})
        return 0
    if not found:
        show("There is no dead letter." if arguments.all else "There is no open dead letter.")
        return 0
    headings = ["position", "at", "reason", "pipeline", "from", *(["settled"] if arguments.all else []), "message"]
    for each in lines(headings, [row(letter, settled=arguments.all) for letter in shown], numbers=[0]):
        write(each)
    left = f"; the last {len(shown):,} are shown (--limit)" if len(shown) < len(found) else ""
    show("", f"{count(len(found), 'dead letter')}{left}. One of them whole: rewarm dead-letters show POSITION")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    with reading(configured(arguments)) as reader:
        letter = dead_letters.find(reader, arguments.position)
    text = letter.text or b""
    if arguments.raw:
        sys.stdout.flush()
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
        return 0
    if arguments.json:
        show_json(whole(letter))
        return 0
    show(facts(described(letter), width=9), "")
    show(*(readable(text) if text else ["Nothing was received." if letter.text == b"" else "Its bytes were not kept."]))
    return 0


def _settle(arguments: argparse.Namespace) -> int:
    configuration = configured(arguments)
    with reading(configuration) as reader:
        chosen = _named(reader, arguments) if arguments.positions else _bulk(reader, arguments)
        identity = reader.identity()
    if not chosen:
        show_json([]) if arguments.json else show("There is no such open dead letter.")
        return 0
    if not arguments.positions and not arguments.yes:
        _confirm(arguments.verb, chosen)
    running = find_daemon(configuration.journal).running
    wait = arguments.timeout if running else None
    results = []
    for letter in chosen:
        event = _request(configuration, letter, arguments, identity)
        result = _outcome(configuration, letter, dispatch(configuration, event, arguments, wait=wait))
        results.append(result)
        if not arguments.json:
            show(_sentence(result))
    if arguments.json:
        show_json(results)
    elif not running and any(result.outcome == "waiting" for result in results):
        show("No daemon is running: the next one reads the spool and carries it out (`rewarm serve`).")
    good = {"accepted", "duplicate", "pending", "dropped"} | (set() if running else {"waiting"})
    return 0 if all(result.outcome in good for result in results) else 1


def _chosen(reader: Reader, arguments: argparse.Namespace, *, settled: bool) -> Iterable[DeadLetter]:
    for letter in dead_letters.letters(reader):
        fits = arguments.reason in (None, letter.reason) and arguments.pipeline in (None, letter.record.pipeline)
        if fits and (settled or letter.settled is None):
            yield letter


def _named(reader: Reader, arguments: argparse.Namespace) -> list[DeadLetter]:
    """Return the dead letters at the given positions; raises RewarmError unless all of them are open."""
    if arguments.all or arguments.reason or arguments.pipeline:
        raise RewarmError("Name positions, or choose by --all, --reason and --pipeline, but not both.")
    found = [dead_letters.find(reader, position) for position in dict.fromkeys(arguments.positions)]
    for letter in found:
        position = letter.record.position
        if letter.settled is not None:
            raise RewarmError(f"The dead letter at position {position} was settled already: {fate(letter.settled)}.")
        why = dead_letters.hopeless(letter.record) if arguments.verb == "retry" else None
        if why is not None:
            raise RewarmError(f"The dead letter at position {position} cannot be retried: {why}")
    return found


def _bulk(reader: Reader, arguments: argparse.Namespace) -> list[DeadLetter]:
    """Return the open dead letters that were chosen, less those that nobody should retry unseen."""
    if not (arguments.all or arguments.reason):
        raise RewarmError(f"Which ones? rewarm dead-letters {arguments.verb} POSITION…, or --reason R, or --all.")
    found = list(_chosen(reader, arguments, settled=False))
    if arguments.verb == "drop":
        return found
    hopeful = [letter for letter in found if dead_letters.hopeless(letter.record) is None]
    # Somebody asked for this without the right to: who retries it makes it a request of their own.
    wanted = [letter for letter in hopeful if letter.reason in (arguments.reason, *_trusted(letter.reason))]
    if len(hopeful) < len(found):
        warn(f"{count(len(found) - len(hopeful), 'dead letter')} left out: what is not there whole is not retried.")
    if len(wanted) < len(hopeful):
        left = count(len(hopeful) - len(wanted), "request")
        warn(f"{left} of senders who may not ask left out: look at them, and name them (--reason {STRANGERS}).")
    return wanted


def _trusted(reason: str) -> tuple[str, ...]:
    return () if reason == STRANGERS else (reason,)


def _confirm(verb: Verb, chosen: Sequence[DeadLetter]) -> None:
    """Raise RewarmError unless a person at a terminal says yes."""
    question = f"{verb.capitalize()} {count(len(chosen), 'dead letter')}?"
    if not sys.stdin.isatty():
        raise RewarmError(f"{question} Say --yes: there is no terminal to ask at.")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise RewarmError("Nothing was done.")


def _request(
    configuration: Configuration, letter: DeadLetter, arguments: argparse.Namespace, journal: str
) -> CloudEvent:
    """Return the request; asked twice in the same words it is the same fact."""
    position, known = letter.record.position, configuration.settings.pipelines
    data = {"verb": arguments.verb, "dead_letter": position, "reason": arguments.because}
    return requested(
        data,
        pipeline=letter.record.pipeline if letter.record.pipeline in known else None,
        now=datetime.now(UTC),
        identity=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{journal} {arguments.verb} {position} {arguments.because}")),
    )


def _outcome(configuration: Configuration, letter: DeadLetter, sent: Sent) -> Result:
    position, answer = letter.record.position, sent.answer
    if answer is None or answer.outcome == "waiting":
        return Result(position=position, outcome="waiting", message=sent.delivered.file)
    if answer.outcome == "dead_letter":
        return Result(position=position, outcome="not_settled", reason=answer.reason, message=answer.message)
    with reading(configuration) as reader:
        settled = dead_letters.find(reader, position).settled
        again = reader.records(settled.led_to - 1, 1) if settled is not None and settled.led_to is not None else []
    if settled is None:
        return Result(position=position, outcome="not_settled", message="The journal does not say what became of it.")
    refused = again[0].event if again and settled.outcome == "refused" else None
    if isinstance(refused, InputRejected):
        return Result(
            position=position,
            outcome="refused",
            settled=settled,
            reason=refused.reason,
            message=refused.message,
        )
    return Result(position=position, outcome=settled.outcome, settled=settled)


def _sentence(result: Result) -> str:
    if result.settled is not None:
        why = f" {result.message}" if result.outcome == "refused" else ""
        return printable(f"{result.position}: {fate(result.settled)}.{why}")
    if result.outcome == "waiting":
        return f"{result.position}: in the spool: {result.message}"
    return printable(f"{result.position}: the request was refused ({result.reason}): {result.message}")
