"""`rewarm check-policy`: does a policy keep to what every policy has to keep to?"""

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from daemon.cli.output import columns, count, heading, short, show, show_json
from daemon.core.errors import ConfigurationError, RewarmError
from daemon.files import write_atomically

if TYPE_CHECKING:
    from daemon.cli.session import Commands
    from daemon.contract.check import Checked, Example
    from policies.base import BasePolicy

FAILED = 1


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "whether a policy is pure, deterministic, bounded, and decides nothing impossible"
    parser = commands.add_parser("check-policy", parents=[common], help=text, description=f"Show {text}.")
    parser.add_argument("policy", metavar="POLICY", help="package.module:Class, or a kind that rewarm brings")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a field of its configuration; a.b for one in it",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="another seed, other questions; default: 1")
    parser.add_argument(
        "--each", type=int, default=12, metavar="N", help="random questions for each kind of fact; default: 12"
    )
    parser.add_argument(
        "--examples",
        type=Path,
        default=Path("check-policy"),
        metavar="DIR",
        help="where the questions at which a rule broke are written; default: check-policy",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check a policy and show what holds; 1 where a rule is broken."""
    # What simulates and asks is loaded for this command alone.
    from daemon.config import importable
    from daemon.contract.check import check, examples
    from daemon.contract.examination import Task

    if not 1 <= arguments.each <= 1000:  # noqa: PLR2004 - some minutes
        raise RewarmError(f"--each {arguments.each} is not possible: from 1 to 1,000.")
    importable(Path.cwd() if arguments.config is None else arguments.config.resolve().parent)
    policy = made(arguments.policy, arguments.set)
    task = Task(configuration=policy.model_dump_json(by_alias=True), seed=arguments.seed, each=arguments.each)
    checked = check(policy, task)
    written = [write(arguments.examples, policy, each) for each in examples(policy, task, checked)]
    if arguments.json:
        show_json({"good": checked.good, **msgspec.to_builtins(checked), "examples": [str(path) for path in written]})
    else:
        render(checked, arguments.policy, written)
    return 0 if checked.good else FAILED


def made(named: str, given: list[str]) -> "BasePolicy":
    """Return the policy that is to be checked; raises ConfigurationError for what cannot be one."""
    from pydantic import ValidationError

    from daemon.contract.check import make

    fields = settings(given)
    own: dict[str, Any] = {"kind": "custom", "class": named} if ":" in named else {"kind": named}
    try:
        return make(json.dumps({**fields, **own}))
    except ValidationError as error:
        raise ConfigurationError("\n".join(_mistake(named, problem) for problem in error.errors())) from error


def settings(given: list[str]) -> dict[str, Any]:
    """Return the fields that `--set` names, values as YAML has them; raises RewarmError for what is none."""
    fields: dict[str, Any] = {}
    for each in given:
        key, sign, value = each.partition("=")
        parts = key.split(".")
        if not sign or not all(re.fullmatch(r"\w+", part) for part in parts):
            raise RewarmError(f"--set {each!r} is no field: write KEY=VALUE, such as --set after_tokens=1000.")
        inner = fields
        for part in parts[:-1]:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise RewarmError(f"--set {each!r} does not fit what was set before: {part!r} has a value already.")
        try:
            inner[parts[-1]] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise RewarmError(f"--set {each!r} cannot be read as YAML: {error}.") from error
    return fields


def write(folder: Path, policy: "BasePolicy", example: "Example") -> Path:
    """Write a question at which a rule broke; return its file."""
    path = folder / f"{policy.label}-{example.rule}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, msgspec.json.format(msgspec.json.encode(example), indent=2))
    except OSError as error:
        raise RewarmError(f"{path} cannot be written: {error}. Name another folder by --examples.") from error
    return path


def render(checked: "Checked", named: str, written: list[Path]) -> None:
    """Show the table of rules, and under it what was seen where one broke."""
    from daemon.contract.rules import RULES

    title = f"{named}: policy {checked.policy}, version {checked.version}"
    said = f"{checked.asked:,} questions, of which it had something to say to {checked.decided:,}; each asked twice, in"
    show(heading(title), f"{said} two processes.", "")
    rows = [("holds" if each.good else "BROKEN", each.rule, RULES[each.rule]) for each in checked.findings]
    show(columns(("", "rule", "what has to hold"), rows))
    broken = [each for each in checked.findings if not each.good]
    for each in broken:
        show("", heading(f"{each.rule} is broken"), f"  {each.why}")
    if written:
        show("", f"State and fact of each, as JSON: {', '.join(short(path) for path in written)}")
    if checked.decided == 0 and not broken:
        show("", "It never said anything: try other fields by --set, or more questions by --each.")
    show("", f"{count(len(broken), 'rule')} broken." if broken else "Every rule holds.")


def _mistake(named: str, problem: Any) -> str:  # noqa: ANN401 - pydantic's own untyped report
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "union_tag_invalid":
        known = problem["ctx"]["expected_tags"].replace(", 'custom'", "")
        return f"There is no policy {named!r}: give 'package.module:Class', or one of {known}."
    where = ".".join(str(part) for part in problem["loc"][1:])
    return f"{named}: {where}: {message}." if where else f"{named}: {message}."
