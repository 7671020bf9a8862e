"""`rewarm serve`, `rewarm worker` and `rewarm ui`: the processes that stay."""

import argparse
import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from daemon.cli.session import configured
from daemon.core.errors import ConfigurationError, RewarmError

if TYPE_CHECKING:
    from daemon.cli.session import Commands


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Add the commands."""
    text = "the daemon: reads its sources, decides, runs stages, until SIGTERM"
    parser = commands.add_parser("serve", parents=[common], help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument(
        "--standby",
        action="store_true",
        help="while another daemon has the journal, wait to take over (standby.enabled)",
    )
    parser.set_defaults(run=serve)
    text = "a worker by itself: starts stages for the daemon that shares its state folder"
    parser = commands.add_parser("worker", parents=[common], help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--state", type=Path, metavar="DIR", help="the state folder (default: the configured one)")
    parser.add_argument("--once", type=Path, metavar="ATTEMPT", help="carry out the attempt in this folder, then end")
    parser.set_defaults(run=worker)
    text = "MLflow's pages on what was recorded"
    parser = commands.add_parser("ui", parents=[common], help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--port", type=int, default=5000, help="default: 5000")
    parser.set_defaults(run=ui)


def serve(arguments: argparse.Namespace) -> int:
    """Run the daemon until it is asked to stop."""
    from daemon.app import serve as run_daemon

    return run_daemon(configured(arguments), standby=arguments.standby)


def worker(arguments: argparse.Namespace) -> int:
    """Run a worker on a state folder."""
    from daemon.dispatch.worker import main as run_worker

    state: Path = arguments.state or configured(arguments).state
    if not state.is_dir():
        raise RewarmError(f"There is no state folder {state}: give the daemon's by --state.")
    return run_worker(state.resolve(), arguments.once)


def ui(arguments: argparse.Namespace) -> NoReturn:
    """Become `mlflow ui` on the configured store."""
    configuration = configured(arguments)
    if configuration.tracking_uri is None:
        raise ConfigurationError("Nothing is recorded: `mlflow.tracking_uri` is not set, so there are no pages.")
    if importlib.util.find_spec("mlflow") is None:
        raise RewarmError("MLflow is not installed in this environment: run `make setup`.")
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", configuration.tracking_uri]
    command += ["--host", "127.0.0.1", "--port", str(arguments.port)]
    os.execv(sys.executable, command)  # noqa: S606 - own interpreter, a list of arguments
