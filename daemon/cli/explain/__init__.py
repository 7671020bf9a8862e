"""`rewarm explain`: a run's chain of causes, a pipeline's present, and what saw an arrival."""

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from daemon.cli.explain import present, render
from daemon.cli.explain.way import render_way
from daemon.cli.explain.why import look
from daemon.cli.output import program, short, show, show_json
from daemon.cli.session import configured, perhaps_reading, reading
from daemon.config import Configuration
from daemon.core.state import State
from daemon.restore import restore
from daemon.sightings import Way, follow
from daemon.story import Story, tell

if TYPE_CHECKING:
    from daemon.cli.session import Commands


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "the chain of causes and numbers of a run; of a pipeline, why it did not train; what saw an arrival"
    parser = commands.add_parser("explain", parents=[common], help=text, description=f"Show {text}.")
    parser.add_argument(
        "subject",
        metavar="RUN|PIPELINE|POSITION",
        help="a run such as docs-lm-12, a pipeline, or the position of an arrival",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Explain a run, a pipeline or an arrival; raises RewarmError for none of them."""
    configuration = configured(arguments)
    if arguments.subject in configuration.settings.pipelines:
        return _pipeline(configuration, arguments.subject, as_json=arguments.json)
    with reading(configuration) as reader:
        if arguments.subject.isdecimal():
            return _arrival(follow(reader, int(arguments.subject)), as_json=arguments.json)
        told = tell(reader, arguments.subject)
    if arguments.json:
        show_json(told)
        return 0
    show(*render.story(told, files(configuration, told), following(told)))
    return 0


def files(configuration: Configuration, told: Story) -> dict[str, str]:
    """Return where what the run left behind lies."""
    found = {}
    if told.promoted is not None:
        model = short(configuration.state / told.promoted.path)
        found["model"] = f"{model} (sha256 {told.promoted.sha256[:12]}…)"
        found["trunk"] = short(configuration.state / told.promoted.trunk.path)
    folder = configuration.state / "runs" / told.run
    found["run"] = f"{short(folder)}/STAGE/ATTEMPT: spec.json, outcome.jsonl, log.txt, metrics.jsonl"
    return found


def following(told: Story) -> list[tuple[str, str]]:
    """Return commands that make sense after this story."""
    rewarm = program()
    found = [(f"{rewarm} events --run {told.run}", "every record of this run")]
    match told.ending.outcome:
        case "promoted" if told.rolled_back is not None:
            found.append((f"{rewarm} champions {told.pipeline}", "which version was live when, and why it went"))
        case "promoted" if told.promoted is not None and told.promoted.model_version > 1:
            found.append((f"{rewarm} request rollback {told.pipeline}", "make the previous version the champion again"))
        case "rejected":
            accept = f"{rewarm} request accept {told.pipeline} --run {told.run}"
            found.append((accept, "use its data again in the next run"))
            withdraw = f"{rewarm} request withdraw {told.pipeline} --run {told.run}"
            found.append((withdraw, "give its data up for ever"))
        case "held":
            found.append((f"{rewarm} request approve {told.pipeline}", "promote it if it still keeps its bounds"))
        case "failed":
            found.append((f"{rewarm} request retry {told.pipeline}", "try its data again"))
        case "active":
            found.append((f"{rewarm} request cancel {told.pipeline}", "end it"))
        case _:
            pass
    found.append((f"{rewarm} explain {told.pipeline}", "what the policies say now"))
    found.append((f"{rewarm} ui", "training curves and plots in MLflow"))
    return found


def _arrival(way: Way, *, as_json: bool) -> int:
    if as_json:
        show_json(way)
    else:
        show(*render_way(way))
    return 0


def _pipeline(configuration: Configuration, name: str, *, as_json: bool) -> int:
    with perhaps_reading(configuration) as reader:
        state = restore(reader).state if reader is not None else State()
        seen = look(configuration, reader, state, name, datetime.now(UTC))
    if as_json:
        show_json(seen)
        return 0
    show(*present.why(seen))
    return 0
