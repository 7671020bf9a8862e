"""Retention of a real daemon: told in the journal, gone from the disk, and what is in use still there."""

import json

from daemon.core.events import FilesExpired, RunSucceeded
from daemon.testing import Life
from tests.acceptance.home import Home
from tests.acceptance.publishing import PUBLISH


def keep(home: Home, **retention: object) -> None:
    """Configure a pipeline whose runs publish a model, and how long files are kept."""
    home.configure(PUBLISH)
    content = json.loads(home.configuration.read_text(encoding="utf-8"))
    content["retention"] = retention
    home.configuration.write_text(json.dumps(content), encoding="utf-8")


def test_files_expire_and_a_kill_in_between_is_healed(home: Home) -> None:
    """Killed after the fact and before the removal, the next daemon removes; a rollback still finds its model."""
    keep(home, checkpoints=None)
    daemon = home.start()
    for number in range(4):
        home.arrive(str(number))
        home.wait_for(RunSucceeded, number + 1)
    assert home.stop(daemon) == 0
    attempts = sorted(home.state.glob("runs/*/*/1"))
    assert len(attempts) == 4
    keep(home, checkpoints="PT0.001S", models=0)
    daemon = home.start(Life(config=str(home.configuration), boundary="retention.after_told"))
    assert daemon.wait(20) == -9
    told = home.events(FilesExpired)
    assert sorted(event.what for event in told) == ["checkpoints"] * 4 + ["model"]
    assert all((attempt / "checkpoints").exists() for attempt in attempts)
    daemon = home.start()
    home.wait(lambda: not (home.state / "models/one/v2").exists(), "the removal")
    home.wait(lambda: not any((attempt / "checkpoints").exists() for attempt in attempts), "the removals")
    assert home.events(FilesExpired) == told
    assert all((attempt / "outcome.jsonl").exists() for attempt in attempts)
    kept = sorted(path.name for path in home.state.glob("models/one/*") if not path.name.startswith("."))
    assert kept == ["v1", "v3", "v4"]
    home.request("rollback")
    home.wait(lambda: (champion := home.pipeline().champion) is not None and champion.version == 3, "the rollback")
    champion = home.pipeline().champion
    assert champion is not None
    assert (home.state / champion.trunk.path / "manifest.json").exists()
    assert home.stop(daemon) == 0
    assert not [path for path in home.state.rglob(".*") if path.name.endswith((".expired", ".removed"))]
