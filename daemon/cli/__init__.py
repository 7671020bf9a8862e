"""The command line: `main` finds the command, and turns whatever goes wrong into one clear line.

Exit codes: 0 done, 1 something is wrong or a run failed, 2 a mistake in what was asked or configured, 3 another
daemon holds the journal (or took it over), 130 ended by Ctrl-C.
"""

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from daemon.core.errors import JournalBusy, JournalFenced, RewarmError

MISTAKE = 2
BUSY = 3
INTERRUPTED = 130

COMMANDS = {
    "serve": "serve",
    "worker": "serve",
    "ui": "serve",
    "demo": "demo",
    "status": "status",
    "events": "events",
    "explain": "explain",
    "champions": "champions",
    "plan": "plan",
    "simulate": "simulate",
    "emit": "emit",
    "request": "request",
    "reload": "reload",
    "backfill": "backfill",
    "dead-letters": "dead_letters",
    "adopt": "adopt",
    "align": "align",
    "replay": "replay",
    "backup": "backup",
    "restore": "backup",
    "check-config": "check_config",
    "check-policy": "check_policy",
    "schema": "schema",
    "retention": "retention",
    "doctor": "doctor",
    "healthcheck": "health",
}
"""Command → the module that adds it, in the order of `rewarm --help`."""


def build(argv: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser; `--config` and `--json` are understood before and after the command.

    Only the modules of commands that `argv` names are loaded, all of them where it names none: `status` has to
    answer before the rest would be there.
    """
    parser = argparse.ArgumentParser(
        prog="rewarm",
        description="rewarm keeps models fresh: facts come in, policies decide, stages run, all is recorded.",
    )
    parser.add_argument("--config", type=Path, default=None, metavar="FILE", help="the configuration file")
    parser.add_argument("--json", action="store_true", help="answer in JSON")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, default=argparse.SUPPRESS, metavar="FILE", help="the configuration file")
    common.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="answer in JSON")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    named = [COMMANDS[word] for word in argv if word in COMMANDS]
    for module in dict.fromkeys(named or COMMANDS.values()):
        importlib.import_module(f"daemon.cli.{module}").add(commands, common)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command and return its exit code; raises SystemExit for `--help` and wrong arguments."""
    given = list(sys.argv[1:] if argv is None else argv)
    parser = build(given)
    arguments = parser.parse_args(given)
    if arguments.command is None:
        parser.print_help()
        return MISTAKE
    from daemon.cli.output import complain

    try:
        code = int(arguments.run(arguments))
        sys.stdout.flush()
    except (JournalBusy, JournalFenced) as error:
        complain(error, as_json=arguments.json)
        return BUSY
    except RewarmError as error:
        complain(error, as_json=arguments.json)
        return MISTAKE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _mute()
        return 0
    return code


def _mute() -> None:
    """Send what is still buffered nowhere: whoever read us has gone, and the interpreter flushes at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
