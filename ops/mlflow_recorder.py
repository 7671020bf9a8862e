"""Record every transition in MLflow: a process of its own that only reads the journal.

Run as `python -m ops.mlflow_recorder --journal PATH --tracking-uri URI --state DIR`. Whatever happens to
MLflow, the daemon never notices. Exit codes: 0 stopped or done, 1 gave up (only with --once), 2 usage,
3 another recorder follows this journal.
"""

import argparse
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.core.errors import JournalBusy
from daemon.journal.lock import holder, lock_path, release, take
from daemon.journal.sqlite_reader import open_reader
from daemon.logs import configure
from ops.recording.cursor import sqlite_file
from ops.recording.follow import Follower, StoreReplaced, follow, watch

if TYPE_CHECKING:
    from ops.recording.store import Store

logger = logging.getLogger("rewarm.mlflow")
GIVEN_UP, BUSY = 1, 3
ATTEMPTS = 8
CHATTERERS = ("mlflow", "alembic", "sqlalchemy", "sqlalchemy.engine", "huey", "matplotlib", "urllib3")
ENVIRONMENT = {
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the recorder itself tries again, with growing pauses
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""What MLflow takes from the environment alone; read when it is imported or called."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Follow the journal until SIGTERM or SIGINT; with --once, until nothing is left."""
    given = _parser().parse_args(arguments)
    given.state.mkdir(parents=True, exist_ok=True)
    lock = given.journal.with_name(f"{given.journal.name}.mlflow")
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = take(lock)
    except JournalBusy:
        who = holder(lock)
        names = {"lock": str(lock_path(lock)), "pid": who.pid if who else None, "host": who.host if who else None}
        logger.error("Another recorder follows this journal already; this one ends.", extra=names)  # noqa: TRY400
        return BUSY
    try:
        return _run(given)
    finally:
        release(descriptor)


def _run(given: argparse.Namespace) -> int:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    silence()

    def begin() -> Follower:
        reader = open_reader(given.journal)
        return Follower(reader, open_store(given.tracking_uri, given.state), given.state)

    def pause(seconds: float) -> bool:
        return stop.wait(seconds) or (given.with_parent is not None and os.getppid() != given.with_parent)

    names = {"journal": str(given.journal), "state": str(given.state)}
    logger.info("Recorder started.", extra=names)
    attempts = ATTEMPTS if given.once else None
    try:
        follow(begin, pause, poll=given.poll, intact=watch(given.tracking_uri), attempts=attempts)
    except StoreReplaced as error:
        # MLflow keeps its connections for the life of the process; a new life has none of the old file.
        logger.warning(str(error), extra=names)
        os.execv(sys.executable, [sys.executable, "-m", "ops.mlflow_recorder", *_again(given)])  # noqa: S606
    except Exception as error:  # noqa: BLE001 - whatever it was, it was tried and logged often enough
        logger.error("Recording was given up.", extra={"error": f"{type(error).__name__}: {error}"[:500]})  # noqa: TRY400
        return GIVEN_UP
    logger.info("Recorder ended.", extra=names)
    return 0


def silence() -> None:
    """Set MLflow's environment and keep its and its libraries' chatter out of the log; before MLflow's import."""
    os.environ.update(ENVIRONMENT)
    warnings.filterwarnings("ignore", module=r"(mlflow|alembic|sqlalchemy|matplotlib|pydantic)(\..*)?")
    for name in CHATTERERS:
        logging.getLogger(name).setLevel(logging.ERROR)


def _take_over_logs() -> None:
    """Send MLflow's errors where ours go: when it is imported it gives its loggers a handler of its own."""
    for name in CHATTERERS:
        theirs = logging.getLogger(name)
        theirs.handlers[:] = []
        theirs.propagate = True
        theirs.setLevel(logging.ERROR)


def open_store(tracking_uri: str, state: Path) -> "Store":
    """Open the store; an embedded one is made, or lifted to this MLflow's schema, while our lock is held."""
    from mlflow.exceptions import MlflowException

    from ops.recording.store import Store

    _take_over_logs()
    file = sqlite_file(tracking_uri)
    if file is not None and not file.exists():
        _make_store(file)
    try:
        return Store(tracking_uri, state)
    except MlflowException as error:
        if file is None or "out-of-date database schema" not in str(error):
            raise
        logger.warning("The MLflow store is from another release; it is upgraded.", extra={"store": str(file)})
        subprocess.run([sys.executable, "-m", "mlflow", "db", "upgrade", tracking_uri], check=True, capture_output=True)
        return Store(tracking_uri, state)


def _make_store(file: Path) -> None:
    """Make an embedded store's tables under another name, then give it its own.

    MLflow makes its tables in many steps: a kill between them would leave a file that it cannot open again.
    """
    from mlflow import MlflowClient

    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"{file.name}.new")
    for leftover in (unfinished, unfinished.with_name(f"{unfinished.name}-journal")):
        leftover.unlink(missing_ok=True)
    MlflowClient(f"sqlite:///{unfinished}")
    with contextlib.suppress(FileExistsError):
        os.link(unfinished, file)  # unlike a rename it never replaces what somebody else made meanwhile
    unfinished.unlink()


def _again(given: argparse.Namespace) -> list[str]:
    again = ["--journal", str(given.journal), "--tracking-uri", given.tracking_uri, "--state", str(given.state)]
    again += ["--poll", str(given.poll), *(["--once"] if given.once else [])]
    return again if given.with_parent is None else [*again, "--with-parent", str(given.with_parent)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ops.mlflow_recorder", description=__doc__.splitlines()[0])
    parser.add_argument("--journal", type=Path, required=True, metavar="PATH", help="the journal's SQLite file")
    parser.add_argument("--tracking-uri", required=True, metavar="URI", help="MLflow, e.g. sqlite:////var/mlflow.db")
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="the daemon's state folder")
    parser.add_argument("--once", action="store_true", help="end when nothing is left to record")
    parser.add_argument("--poll", type=float, default=1.0, metavar="SECONDS", help="pause while there is nothing new")
    parser.add_argument("--with-parent", type=int, metavar="PID", help="end when this parent process has ended")
    return parser


if __name__ == "__main__":
    configure(sys.stderr)
    logging.captureWarnings(capture=True)
    sys.exit(main())
