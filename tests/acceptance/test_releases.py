"""A daemon goes on from what an earlier release wrote."""

import shutil
from pathlib import Path

import pytest

from daemon.cli import main
from daemon.core.events import DaemonStarted, DriftDetected
from daemon.core.transition import REDUCER_VERSION
from daemon.journal.sqlite import open_reader
from tests.acceptance.home import Home, event
from tests.golden.release import RELEASES

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("release", sorted(path for path in RELEASES.iterdir() if path.is_dir()), ids=lambda p: p.name)
def test_a_daemon_goes_on_from_a_release(home: Home, release: Path) -> None:
    """It folds the old journal, records, keeps a snapshot of its own, and replaying old and new finds no bug."""
    shutil.copytree(release, home.folder, dirs_exist_ok=True)
    before = len(home.records())
    daemon = home.start()
    home.wait_for(DaemonStarted, 3)
    home.send(event("drift.detected", {"metric": "psi", "value": 0.5}, "new", pipeline="docs-lm"))
    home.wait_for(DriftDetected, 2)
    assert home.stop(daemon) == 0
    assert len(home.records()) > before
    with open_reader(home.journal) as reader:
        assert [snapshot.position for snapshot in reader.snapshots(REDUCER_VERSION)] == [reader.head()]
    assert main(["--config", str(home.configuration), "replay"]) == 0
