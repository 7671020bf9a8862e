"""The demo's processes: a daemon that it starts and stops, the recorder's last records, and starting over."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from daemon.cli.session import find_daemon
from daemon.config import Configuration
from daemon.core.errors import RewarmError
from daemon.core.events import DaemonStarted
from daemon.core.state import State
from daemon.journal.sqlite import open_reader
from daemon.restore import restore

START_SECONDS = 60.0
STOP_SECONDS = 30.0
STAGE_SECONDS = 30.0
POLL_SECONDS = 0.1
LOG_LINES = 5


class Serving:
    """A daemon that this process started; whatever happens to the terminal's keys, only `stop` ends it."""

    def __init__(self, configuration: Configuration) -> None:
        """Start `rewarm serve` with its log in the state folder."""
        self.log = configuration.state / "daemon.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "daemon"]
        command += ["--config", str(configuration.file.resolve())] if configuration.file else []
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [*command, "serve"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | _free_port(configuration),
                start_new_session=True,
            )

    def wait(self, configuration: Configuration) -> None:
        """Return once the daemon has said in the journal that it runs; raises RewarmError when it does not."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            self.check()
            if _started(configuration, self._process.pid):
                return
            time.sleep(POLL_SECONDS)
        raise RewarmError(f"The daemon did not start in {START_SECONDS:.0f} s; its log is {self.log}.")

    def check(self) -> None:
        """Raise RewarmError with the end of its log when the daemon is no longer there."""
        if self._process.poll() is None:
            return
        last = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
        told = "\n".join([f"The daemon ended with exit code {self._process.returncode}; its log is {self.log}:", *last])
        raise RewarmError(told)

    def stop(self) -> None:
        """Ask the daemon to drain, and wait until it has."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def serving(configuration: Configuration) -> Iterator[Serving | None]:
    """Hold a daemon for the block: the one that runs (None, and it stays), or one that ends with the block."""
    if find_daemon(configuration.journal).running:
        yield None
        return
    daemon = Serving(configuration)
    try:
        daemon.wait(configuration)
        yield daemon
    finally:
        daemon.stop()


def record_the_rest(configuration: Configuration, timeout: float = 60.0) -> None:
    """Bring MLflow to the journal's end: the daemon's own last words come after its recorder has stopped."""
    if configuration.tracking_uri is None:
        return
    command = [sys.executable, "-m", "ops.mlflow_recorder", "--once"]
    command += ["--journal", str(configuration.journal), "--tracking-uri", configuration.tracking_uri]
    command += ["--state", str(configuration.state)]
    with (configuration.state / "recorder.log").open("ab") as output, contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=timeout, check=False)


def start_over(configuration: Configuration) -> list[Path]:
    """Remove what the configuration's journal, store and runs hold below the state folder; returns what is gone.

    Stages that are at work are cancelled. Raises RewarmError while a daemon is at work.
    """
    daemon = find_daemon(configuration.journal)
    if daemon.running:
        raise RewarmError(
            f"A daemon (process {daemon.pid} on {daemon.host}) writes {configuration.journal}: stop it before --fresh."
        )
    _no_stage(configuration)
    journal = configuration.journal
    doomed = [journal.with_name(journal.name + end) for end in ("", "-wal", "-shm", ".lock", ".mlflow.lock")]
    doomed += [configuration.state / name for name in ("runs", "shards", "tokenizers", "models", "mlflow.cursor")]
    doomed += [*configuration.spools, *configuration.roots]
    if configuration.tracking_uri and configuration.tracking_uri.startswith("sqlite:///"):
        store = Path(configuration.tracking_uri.removeprefix("sqlite:///"))
        doomed += [store.with_name(store.name + end) for end in ("", "-wal", "-shm")]
        doomed.append(store.with_name(f"{store.stem}-artifacts"))
    state = configuration.state.resolve()
    gone = []
    for path in doomed:
        inside = path.resolve().is_relative_to(state) and path.resolve() != state
        if not inside or not path.exists():
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
        gone.append(path)
    return gone


def _no_stage(configuration: Configuration) -> None:
    """End stages that an interrupted demo left at work; raises RewarmError when one does not end."""
    from stages.run_folder import held

    folders = [lock.parent for lock in (configuration.state / "runs").glob("*/*/*/lock") if held(lock.parent)]
    for folder in folders:
        (folder / "stop").write_text("cancel", encoding="ascii")
    until = time.monotonic() + STAGE_SECONDS
    for folder in folders:
        while held(folder):
            if time.monotonic() > until:
                raise RewarmError(f"A stage in {folder} was asked to stop and is still at work: try again later.")
            time.sleep(POLL_SECONDS)


def _started(configuration: Configuration, pid: int) -> bool:
    # The lock is not looked at: whoever looks at that very moment would keep the daemon out.
    if not configuration.journal.exists():
        return False
    try:
        with open_reader(configuration.journal) as reader:
            records = reader.records(0, 1_000_000, kinds={DaemonStarted.kind})
    except RewarmError:
        return False
    return any(isinstance(record.event, DaemonStarted) and record.event.pid == pid for record in records[-3:])


def _free_port(configuration: Configuration) -> dict[str, str]:
    """Return an override that lets the demo work where something else listens on the configured port."""
    http = configuration.settings.http
    if not http.enabled or not http.port:
        return {}
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((http.host, http.port))
        except OSError:
            return {"REWARM_HTTP__PORT": "0"}
    return {}


def state_now(configuration: Configuration) -> State:
    """Return the state that the journal tells, the empty one while there is none."""
    if not configuration.journal.exists():
        return State()
    with open_reader(configuration.journal) as reader:
        return restore(reader).state
