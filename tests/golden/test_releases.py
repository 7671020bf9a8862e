"""What a release wrote opens in the next."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

from daemon.cli import main
from daemon.config import load
from daemon.core.events import DaemonStarted, ModelPromoted
from daemon.journal.base import scan
from daemon.journal.sqlite import open_reader, verify
from daemon.replay import replay
from daemon.restore import restore
from tests.golden.release import RELEASES

KEPT = sorted(path for path in RELEASES.iterdir() if path.is_dir())


@pytest.fixture(params=KEPT, ids=lambda path: path.name)
def release(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Copy a release's folder."""
    return Path(shutil.copytree(request.param, tmp_path / "release"))


def test_this_release_is_kept() -> None:
    """The version that is built now has its folder; a new one makes it before it is tagged."""
    assert version("rewarm") in {path.name for path in KEPT}


def test_its_configuration_and_journal_are_read(release: Path) -> None:
    """The file is sound, every record decodes, and the fold gives champion, previous runs and open dead letters."""
    configuration = load(release / "rewarm.yaml")
    assert verify(configuration.journal) == []
    with open_reader(configuration.journal) as reader:
        records = list(scan(reader))
        state = restore(reader).state
    assert [record.position for record in records] == list(range(1, state.position + 1))
    started = [record.event.epoch for record in records if isinstance(record.event, DaemonStarted)]
    assert started == [1, 2]
    promoted = [record.event for record in records if isinstance(record.event, ModelPromoted)]
    champion = state.pipelines["docs-lm"].champion
    assert champion is not None
    assert (champion.version, champion.sha256) == (1, promoted[0].sha256)
    assert state.dead_letters == 2


def test_replaying_it_finds_no_bug(release: Path) -> None:
    """What is decided otherwise today is explained by a version."""
    with open_reader(release / "journal.db") as reader:
        found = replay(scan(reader))
    assert found.differs == 0, found.differences
    assert all("had version" in why for why in found.changed)
    assert found.same > sum(found.changed.values())


def test_the_command_line_reads_it(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`status` and `replay` answer without complaint."""
    configuration = str(release / "rewarm.yaml")
    assert main(["--config", configuration, "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pipelines"]["docs-lm"]["champion"]["version"] == 1
    assert main(["--config", configuration, "replay", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["good"]
