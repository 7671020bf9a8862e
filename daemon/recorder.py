"""The MLflow recorder's keeper: its process is started, restarted when it ends, and let go with the daemon."""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

RESTART_SECONDS = 5.0
STOP_SECONDS = 5.0
logger = logging.getLogger("rewarm.recorder")


class Recorder:
    """Keeps `python -m ops.mlflow_recorder` running; a hang or a crash of it touches nobody else."""

    def __init__(self, *, journal: Path, tracking_uri: str, state: Path) -> None:
        self._command = [
            sys.executable,
            "-m",
            "ops.mlflow_recorder",
            *("--journal", str(journal)),
            *("--tracking-uri", tracking_uri),
            *("--state", str(state)),
            *("--with-parent", str(os.getpid())),
        ]
        self._log = state / "recorder.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._started = -RESTART_SECONDS

    def keep(self) -> None:
        """Start the recorder unless it runs, at most once in a few seconds."""
        if self._process is not None and self._process.poll() is None:
            return
        if time.monotonic() - self._started < RESTART_SECONDS:
            return
        if self._process is not None:
            logger.warning("The recorder ended; it is started again.", extra={"exit": self._process.returncode})
        self._started = time.monotonic()
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def stop(self) -> None:
        """End the recorder; what it had not recorded yet follows when it is started again."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
