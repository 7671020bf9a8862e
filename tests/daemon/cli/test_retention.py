"""`rewarm retention`: what would go, why, and that nothing does."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.daemon.cli.conftest import Chronicle, Command

RETENTION = "retention: {checkpoints: P1D, models: 0}\n"


@pytest.fixture
def aged(chronicle: "Chronicle", tmp_path: Path) -> list[str]:
    """Two runs that were promoted long ago, and their files; returns the runs."""
    chronicle.arrive("prose", 900_000, id="prose-1")
    runs = [chronicle.train()]
    chronicle.arrive("code", 600_000, id="code-2")
    runs.append(chronicle.train({"prose": 0.004, "code": -0.8}, shift=0.9))
    chronicle.close()
    for run in runs:
        folder = tmp_path / "var" / "runs" / run / "train" / "1" / "checkpoints" / "step-1"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"x" * 2048)
    return runs


def test_what_would_go(aged: list[str], rewarm: "Command", tmp_path: Path) -> None:
    """A line for each removal with its size and rule, the same in JSON, and every file is still there."""
    files = sorted((tmp_path / "var" / "runs").rglob("*"))
    result = rewarm("retention")
    assert result.code == 0
    assert "Kept: checkpoints P1D, runs for ever, shards for ever, models for ever." in result.out
    assert "2 removals, 4.0 KiB." in result.out
    assert all(run in result.out for run in aged)
    told = json.loads(rewarm("retention", "--json").out)
    assert told["bytes"] == 4096
    assert [(each["what"], each["run"]) for each in told["goes"]] == [("checkpoints", run) for run in aged]
    assert told["goes"][0]["paths"] == [f"runs/{aged[0]}/train/1/checkpoints"]
    assert "ended (promoted)" in told["goes"][0]["rule"]
    assert sorted((tmp_path / "var" / "runs").rglob("*")) == files


def test_versions_in_use_are_not_listed(aged: list[str], rewarm: "Command", tmp_path: Path) -> None:
    """Both versions are in use, as champion and as base: with `models: 0` neither goes."""
    file = tmp_path / "rewarm.yaml"
    file.write_text(file.read_text(encoding="utf-8") + RETENTION, encoding="utf-8")
    for version in ("v1", "v2"):
        (tmp_path / "var" / "models" / "docs-lm" / version).mkdir(parents=True)
    told = json.loads(rewarm("retention", "--json").out)
    assert {each["what"] for each in told["goes"]} == {"checkpoints"}


def test_what_waits_for_mlflow_is_counted(aged: list[str], rewarm: "Command", tmp_path: Path) -> None:
    """No store is there yet: the folders of both runs stay until it has their curves."""
    file = tmp_path / "rewarm.yaml"
    given = "retention: {checkpoints: null, runs: P1D}\n"
    file.write_text(file.read_text(encoding="utf-8") + given, encoding="utf-8")
    told = json.loads(rewarm("retention", "--json").out)
    assert (told["goes"], told["waits"]) == ([], 2)
    assert "2 removals wait until MLflow has recorded so far." in rewarm("retention").out
    store = '"sqlite:///var/mlflow.db"'
    file.write_text(file.read_text(encoding="utf-8").replace(store, "null"), encoding="utf-8")
    told = json.loads(rewarm("retention", "--json").out)
    assert ([each["run"] for each in told["goes"]], told["waits"]) == (aged, 0)


def test_without_a_journal_nothing_goes(rewarm: "Command") -> None:
    """Before the first daemon there is nothing to remove."""
    result = rewarm("retention")
    assert (result.code, result.out.splitlines()[-1]) == (0, "Nothing would go.")
