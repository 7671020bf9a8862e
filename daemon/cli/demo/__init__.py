"""`rewarm demo`: the main job on the embedded default, from a first arrival to a promoted model, ending by itself."""

import argparse
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from daemon.cli.delivery import await_answer, deliver, enveloped, find_answer, inspect
from daemon.cli.demo.processes import Serving, record_the_rest, serving, start_over, state_now
from daemon.cli.demo.report import Report, collect, render
from daemon.cli.demo.screen import Screen, choose
from daemon.cli.demo.steps import SOURCE, STEPS, Step, delivered, goal, library, settled
from daemon.cli.demo.watch import Watch
from daemon.cli.explain.why import look
from daemon.cli.output import console, count, show, show_json, size
from daemon.cli.session import configured, perhaps_reading, reading
from daemon.cli.status import mlflow_behind
from daemon.config import Configuration
from daemon.core.errors import ConfigurationError, RewarmError
from daemon.core.events import DataArrived
from daemon.core.state import Pipeline
from daemon.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.cli.session import Commands

PREFERRED = "docs-lm"
ARRIVAL_SECONDS = 60.0
MLFLOW_SECONDS = 60.0


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "the main job on Python's own library, ending by itself; again for the next arrival"
    parser = commands.add_parser("demo", parents=[common], help=text, description=text)
    parser.add_argument("--fresh", action="store_true", help="start over: remove the journal, runs, models and store")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Deliver what comes next, watch it being trained on, and show what came of it; 1 when a run failed."""
    began = time.monotonic()
    configuration = configured(arguments)
    name = pipeline_of(configuration)
    if arguments.fresh:
        start_over(configuration)
    screen = choose(console(), as_json=arguments.json)
    pipeline = state_now(configuration).pipelines.get(name) or Pipeline(name=name)
    with perhaps_reading(configuration) as reader:
        have = delivered(reader, name)
    wanted = goal(len(have), at_rest=settled(pipeline))
    news = wanted > len(have) or not settled(pipeline)
    failures: tuple[str, ...] = ()
    if news:
        try:
            failures = _work(configuration, name, wanted, screen)
        except KeyboardInterrupt:
            screen.say("\nStopped. A stage that was at work goes on by itself; `rewarm demo` goes on where it was.")
            raise
    else:
        screen.say("There is nothing new to deliver: nothing is trained. (`make run FRESH=1` starts over.)")
    if mlflow_behind(configuration, state_now(configuration).position):
        record_the_rest(configuration)
    with reading(configuration) as reader:
        state = state_now(configuration)
        took = time.monotonic() - began
        report = collect(configuration, reader, state, name, seconds=took, news=news, failures=failures)
    _present(report, configuration, as_json=arguments.json)
    return 1 if failures else 0


def pipeline_of(configuration: Configuration) -> str:
    """Return the pipeline that the demo feeds; raises ConfigurationError when it cannot work."""
    names = list(configuration.settings.pipelines)
    if not names or not configuration.roots or not configuration.spools:
        raise ConfigurationError(
            f"{configuration.file or 'Without a file the configuration'} lacks a pipeline, a root or a spool: "
            "the demo needs one of each. The rewarm.yaml that comes with rewarm has them."
        )
    return PREFERRED if PREFERRED in names else names[0]


def _work(configuration: Configuration, name: str, wanted: int, screen: Screen) -> tuple[str, ...]:
    """Bring the journal to `wanted` arrivals with all that follows from them; returns what failed."""
    screen.say("Starting the daemon …", "dim")
    with screen, serving(configuration) as daemon, reading(configuration) as reader:
        alive: Callable[[], None] = daemon.check if daemon is not None else _nothing
        screen.say(_told(configuration, daemon), "dim")
        watch = Watch(reader, state_now(configuration), name, configuration.state / "runs", screen)
        watch.until_settled(alive)
        have = delivered(reader, name)
        for number, step in enumerate(STEPS[:wanted], start=1):
            if step.id in have or watch.failures:
                continue
            _deliver(configuration, name, step, number, watch, screen)
            watch.until_settled(alive)
        if watch.pipeline.waiting and not watch.failures and settled(watch.pipeline):
            _say_why(configuration, name, watch, screen)
        screen.say("Waiting for MLflow to be up to date …", "dim")
        if not _recorded(configuration, watch):
            screen.say("MLflow is still behind; the recorder goes on whenever a daemon runs.", "yellow")
        return tuple(watch.failures)


def _told(configuration: Configuration, daemon: Serving | None) -> str:
    if daemon is None:
        return f"A daemon runs already on {configuration.journal}; it is used, and stays."
    return f"The daemon runs; its log is {daemon.log}. It ends with this demo."


def _deliver(configuration: Configuration, name: str, step: Step, number: int, watch: Watch, screen: Screen) -> None:
    """Write an arrival's file, send its event by the spool, and see that it is in the journal."""
    screen.say("\nReading Python's library …", "dim")
    made = step.make(library(), step.bytes)
    data = made.jsonl()
    folder = configuration.roots[0]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{step.id}.jsonl"
    write_atomically(path, data)
    screen.say(f"Arrival {number} of {len(STEPS)}: {made.domain} ({made.told})", "bold")
    screen.say(f"  {count(len(made.documents), 'document')}, {size(len(data))}, delivered as {step.id} by the spool")
    event = DataArrived(
        uri=path.resolve().as_uri(), domain=made.domain, format="jsonl", bytes=len(data), documents=len(made.documents)
    )
    envelope = enveloped(event, name, now=datetime.now(UTC), identity=step.id, source=SOURCE)
    inspect(configuration, envelope)
    sent = deliver(configuration, envelope, watch.state.position)
    with reading(configuration) as reader:
        answer = await_answer(lambda: find_answer(reader, sent), ARRIVAL_SECONDS)
    if answer.outcome == "dead_letter":
        raise RewarmError(f"The daemon refused {step.id} ({answer.reason}): {answer.message}")
    if answer.outcome == "waiting":
        raise RewarmError(f"The daemon did not read {sent.file} within {ARRIVAL_SECONDS:.0f} s.")


def _say_why(configuration: Configuration, name: str, watch: Watch, screen: Screen) -> None:
    """Say which policies let data wait."""
    seen = look(configuration, None, watch.state, name, datetime.now(UTC))
    for opinion in seen.opinions:
        if opinion.verdict is not None:
            screen.say(f"  {opinion.policy}: {opinion.verdict}: {opinion.reason}", "yellow")


def _recorded(configuration: Configuration, watch: Watch) -> bool:
    until = time.monotonic() + MLFLOW_SECONDS
    while time.monotonic() < until:
        watch.look()
        if mlflow_behind(configuration, watch.state.position) <= 0:
            return True
        time.sleep(0.3)
    return False


def _present(report: Report, configuration: Configuration, *, as_json: bool) -> None:
    if as_json:
        show_json(report)
        return
    show("", *render(report, configuration.state, width=console().width))


def _nothing() -> None:
    """Look at nothing: a daemon that somebody else started is theirs to watch."""
