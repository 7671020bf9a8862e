"""A model of another state folder becomes the first champion, and is gone on from: the real stages."""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.core.events import (
    DataArrived,
    DecisionMade,
    InputRejected,
    ModelEvaluated,
    ModelPromoted,
    ModelRolledBack,
    RunFailed,
    RunStarted,
    RunSucceeded,
    StageSucceeded,
)
from daemon.core.state import Model
from tests.acceptance.home import RECOVERY, Home, event

pytestmark = pytest.mark.slow

STAGES = ("ingest", "probe", "train", "evaluate", "promote")
WORDS = {
    "prose": "the a model learns from text and then it reads more of the same old words",
    "code": "def return self x = ( ) : for in if else import class None True yield",
}


def corpus(domain: str, count: int = 60) -> str:
    """Return documents of a domain, the same ones each time."""
    generator = random.Random(domain)
    texts = [" ".join(generator.choices(WORDS[domain].split(), k=generator.randint(10, 40))) for _ in range(count)]
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


def arrive(home: Home, domain: str) -> None:
    """Tell that a domain's documents have arrived."""
    uri = home.data(corpus(domain), f"{domain}.jsonl")
    home.send(event("data.arrived", {"uri": uri, "domain": domain}, domain))


def champion(home: Home) -> Model:
    """Return the champion."""
    found = home.pipeline().champion
    assert found is not None
    return found


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[tuple[Home, Home]]:
    """Two homes of the same pipeline of the nano model, which trains for a few steps."""
    made = (Home(tmp_path / "one"), Home(tmp_path / "two"))
    for home in made:
        home.configure(*STAGES, warm=True)
        content = json.loads(home.configuration.read_text(encoding="utf-8"))
        training = {"batch": 4, "context": 64, "max_tokens": 6 * 4 * 64}
        content["pipelines"]["one"]["policies"] = [
            {"kind": "rewarm_replay", "after_tokens": 1, "replay": 0.25, "training": training},
            RECOVERY,
            {"kind": "promotion", "max_forgetting": 9.0, "min_gain": -9.0},
        ]
        home.configuration.write_text(json.dumps(content), encoding="utf-8")
    yield made
    for home in made:
        home.close()


def check_refusals(home: Home) -> None:
    """A folder outside of the roots is a dead letter; one that holds a pickle fails the run, and says what to do."""
    outside, pickled = home.folder / "elsewhere", home.inbox / "pickled"
    for folder in (outside, pickled):
        folder.mkdir()
        (folder / "pytorch_model.bin").write_bytes(b"anything")
    (home.inbox / "link").symlink_to(outside)
    wanted = {"link": "outside_roots", str(outside): "outside_roots", "nowhere": "file_missing"}
    for number, (model, reason) in enumerate(wanted.items(), start=1):
        home.request("adopt", model=model)
        assert home.wait_for(InputRejected, number).reason == reason
    home.request("adopt", model=pickled.as_uri())
    failed = home.wait_for(RunFailed)
    assert (failed.stage, failed.failure) == ("adopt", "user_error")
    assert "pytorch_model.bin, a pickle" in failed.reason


def test_a_champion_of_another_home_is_adopted_and_gone_on_from(homes: tuple[Home, Home]) -> None:
    """With its corpus as its past it has the losses that it had; the increment replays; a rollback leads to it.

    What cannot be adopted is told before; what arrives after the request stays pending.
    """
    first, second = homes
    first.start()
    arrive(first, "prose")
    second.start()
    check_refusals(second)
    first.wait_for(RunSucceeded)
    original = champion(first)
    shutil.copytree(first.state / original.path, second.inbox / "v1")

    second.request("pause")
    arrive(second, "prose")
    second.wait_for(DataArrived)
    second.request("adopt", model="v1", reason="we have it already")
    second.wait_for(DecisionMade, condition=lambda decision: decision.verdict == "adopt")
    arrive(second, "code")
    second.wait_for(DataArrived, 2)
    second.request("adopt", model="v1")
    refused = second.wait_for(DecisionMade, condition=lambda decision: decision.verdict == "not_possible")
    assert "waits already" in refused.reason
    second.request("resume")
    adopted = second.wait_for(ModelPromoted)
    assert (adopted.model_version, adopted.parent, adopted.sha256) == (1, None, original.sha256)
    assert adopted.trunk.sha256 == original.trunk.sha256
    assert adopted.adopted_from == str(second.inbox / "v1")
    assert adopted.losses == pytest.approx(original.losses, abs=1e-6)
    assert set(adopted.losses) == {"prose"}

    increment = second.wait_for(ModelPromoted, 2)
    assert (increment.model_version, increment.parent) == (2, 1)
    starts = {started.plan.kind: started.plan for started in second.events(RunStarted)}
    assert [started.plan.kind for started in second.events(RunStarted)] == ["adopt", "adopt", "increment"]
    assert starts["increment"].start.checkpoint == adopted.trunk
    assert (set(starts["increment"].new), set(starts["increment"].past)) == ({"code"}, {"prose"})
    assert [set(evaluated.domains) for evaluated in second.events(ModelEvaluated)] == [{"prose"}, {"prose", "code"}]
    trained = second.wait_for(StageSucceeded, condition=lambda stage: stage.stage == "train")
    assert trained.metrics["replay_share"] == pytest.approx(0.25, abs=0.05)
    assert trained.metrics["optimiser_kept"] == 1.0

    second.wait_for(RunSucceeded, 2)
    second.request("adopt", model="v1")
    second.wait_for(DecisionMade, condition=lambda decision: "is champion already" in decision.reason)
    second.request("rollback")
    second.wait_for(ModelRolledBack)
    assert (champion(second).version, champion(second).sha256) == (1, original.sha256)
    assert second.pipeline().base == champion(second)
