"""A model that is not of language, kept fresh: the worked example, through the real daemon and its real stages."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

from daemon.core.events import DataIngested, ModelEvaluated, ModelPromoted, RunStarted, RunSucceeded, StageSucceeded
from tests.acceptance.home import RECOVERY, Home, event
from tests.bench.targets import ROOT

pytestmark = pytest.mark.slow

EXAMPLE = ROOT / "docs" / "examples" / "digits"
FEWER = {"epochs": 12, "batch": 32, "peak": 6e-3}
"""The test trains less than the example, which has no hurry."""


@pytest.fixture
def digits(home: Home, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Start a daemon with the example's pipeline, and give the example's module; its data lies in the home."""
    home.configure(warm=True)
    example = yaml.safe_load((EXAMPLE / "rewarm.yaml").read_text(encoding="utf-8"))
    pipeline = example["pipelines"]["digits"]
    pipeline["policies"] = [RECOVERY if each["kind"] == RECOVERY["kind"] else each for each in pipeline["policies"]]
    pipeline["policies"][0]["training"] |= FEWER
    content = json.loads(home.configuration.read_text(encoding="utf-8"))
    content["pipelines"] = {"digits": pipeline}
    home.configuration.write_text(json.dumps(content), encoding="utf-8")
    home.start(environment={"PYTHONPATH": str(EXAMPLE)})
    monkeypatch.syspath_prepend(str(EXAMPLE))
    module = importlib.import_module("digits")
    # The file behind scikit-learn's load_digits, whose import alone would take three seconds.
    sklearn = importlib.util.find_spec("sklearn")
    assert sklearn is not None
    assert sklearn.origin is not None
    table = np.loadtxt(Path(sklearn.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    module.write_data(home.folder, table[:, :-1], table[:, -1])
    return module


def arrive(home: Home, domain: str) -> None:
    """Tell that a domain's digits have arrived."""
    home.send(event("data.arrived", {"uri": f"{domain}.jsonl", "domain": domain}, domain, pipeline="digits"))


def test_the_digits_are_learned_and_not_forgotten(home: Home, digits: ModuleType) -> None:
    """Base and increment are promoted by the loss per example; of the new digits half of every batch is old ones."""
    arrive(home, "low")
    first = home.wait_for(ModelPromoted)
    arrive(home, "middle")
    second = home.wait_for(ModelPromoted, 2)
    home.wait_for(RunSucceeded, 2)

    counted = {ingested.domain: ingested.amount for ingested in home.events(DataIngested)}
    rows = {domain: len((home.inbox / f"{domain}.jsonl").read_text().splitlines()) for domain in ("low", "middle")}
    assert {domain: amount.documents for domain, amount in counted.items()} == rows
    assert all(0.8 * rows[domain] < amount.tokens < rows[domain] for domain, amount in counted.items())
    assert [started.plan.kind for started in home.events(RunStarted)] == ["base", "increment"]
    trained = home.wait_for(StageSucceeded, 2, condition=lambda stage: stage.stage == "train")
    assert trained.metrics["replay_share"] == pytest.approx(0.5, abs=0.01)

    before, after = (digits.measure(home.state / promoted.path, home.folder) for promoted in (first, second))
    assert before["low"] > 0.95
    assert before["middle"] == before["high"] == after["high"] == 0.0
    assert after["low"] > 0.9
    assert after["middle"] > 0.9
    increment = home.wait_for(ModelEvaluated, 2)
    assert set(increment.domains) == {"low", "middle"}
    gained = increment.domains["middle"].difference
    assert gained is not None
    assert gained.mean < -1.0
    published = home.state / second.path
    assert json.loads((published / "config.json").read_text()) == {
        "model_type": "rewarm-module",
        "version": 1,
        "factory": "digits:make",
    }
    files = {path.name for path in published.iterdir() if path.is_file()}
    assert files == {"config.json", "manifest.json", "model.safetensors"}
