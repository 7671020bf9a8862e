"""The gate against bad data and bad models: the real stages, a micro model."""

import json
import random
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from daemon.cli import main
from daemon.core.events import (
    DecisionMade,
    ModelPromoted,
    ModelRejected,
    ModelRolledBack,
    PlanFixed,
    RunHeld,
    RunResumed,
    RunStarted,
    RunSucceeded,
    StageStarted,
)
from daemon.core.plans import tokens
from tests.acceptance.home import RECOVERY, Home, event

pytestmark = pytest.mark.slow

STAGES = ("ingest", "probe", "train", "evaluate", "promote")
WORDS = {
    "prose": "the a model learns from text and then it reads more of the same old words",
    "greek": "και το μοντέλο μαθαίνει από κείμενα διαβάζει πάλι τις ίδιες παλιές λέξεις",
}


def texts(kind: str, count: int = 60) -> list[str]:
    """Return documents of a kind, the same ones each time; `noise` is letters at random, `more` is prose."""
    generator = random.Random(kind)
    if kind == "noise":
        letters = [chr(code) for code in range(33, 127)]
        return ["".join(generator.choices(letters, k=generator.randint(60, 200))) for _ in range(count)]
    words = WORDS.get(kind, WORDS["prose"]).split()
    return [" ".join(generator.choices(words, k=generator.randint(10, 40))) for _ in range(count)]


def guard(home: Home) -> None:
    """Configure the pipeline with a gate at which everything needs a person and whose champions are watched."""
    home.configure(*STAGES, warm=True)
    content = json.loads(home.configuration.read_text(encoding="utf-8"))
    pipeline = content["pipelines"]["one"]
    pipeline["model"] = {"preset": "micro"}
    pipeline["data"] = {"held_out": 0.2}
    training = {"batch": 8, "context": 32, "epochs": 9, "max_tokens": 160 * 8 * 32, "peak": 1e-2, "floor": 1e-3}
    watch = {"signal": "evaluation.accuracy", "better": "higher", "for": "PT1H", "tolerance": 0.01}
    pipeline["policies"] = [
        {"kind": "rewarm_replay", "after_tokens": 1, "replay": 0.01, "training": training},
        RECOVERY,
        {"kind": "promotion", "approval": "always", "max_forgetting": 0.05, "watch": watch},
    ]
    home.configuration.write_text(json.dumps(content), encoding="utf-8")


def judged(home: Home) -> set[str]:
    """Return the runs that have ended at the gate, or wait there."""
    return {e.run for e in home.events(RunSucceeded)} | {e.run for e in home.events(RunHeld)}


def run_over(home: Home, kind: str, number: int) -> RunStarted:
    """Let documents of the domain prose arrive; return the run over them, the `number`-th, when it is judged."""
    content = "".join(json.dumps({"text": text}) + "\n" for text in texts(kind))
    home.send(event("data.arrived", {"uri": home.data(content, f"{kind}.jsonl"), "domain": "prose"}, kind))
    started = home.wait_for(RunStarted, number)
    home.wait(lambda: started.run in judged(home), f"the end of {started.run}")
    return started


def report(home: Home, version: int, *values: float) -> None:
    """Report the live quality of a version."""
    for number, value in enumerate(values):
        told = {"metric": "accuracy", "value": value, "model_version": version}
        home.send(event("evaluation.reported", told, f"accuracy {version} {number}"))


def specification(home: Home, run: str) -> dict[str, Any]:
    """Return what a run's train stage was told."""
    told: dict[str, Any] = json.loads((home.state / "runs" / run / "train" / "1" / "spec.json").read_bytes())
    return told


def positions(shards: Iterable[Mapping[str, Any]]) -> set[int]:
    """Return the arrivals that shards came from."""
    return {shard["position"] for shard in shards}


def said(home: Home, capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """Run a command that succeeds; return what it says, the line breaks taken out."""
    assert main(["--config", str(home.configuration), *command]) == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.timeout(240)
def test_bad_data_is_refused_and_a_bad_model_goes_again(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """Noise and another language under the name of a domain are refused, though they were learned very well.

    They are set aside, stay out of the trunk and of the replay of what comes next, and can be accepted. A model that
    was let through by force goes again by itself when it does worse, and nothing goes on from it.
    """
    guard(home)
    home.start()
    first = run_over(home, "prose", 1)
    report(home, 1, 0.9, 0.91, 0.89)
    base = home.wait_for(ModelPromoted)
    prose = positions(specification(home, first.run)["new"])

    refused = [run_over(home, kind, number) for number, kind in enumerate(("noise", "greek"), 2)]
    for run, rejected in zip(refused, home.events(ModelRejected), strict=True):
        assert rejected.run == run.run
        spoken = said(home, capsys, "explain", run.run)
        assert f"{run.run}: an increment that was rejected" in spoken
        assert "promotion reject: Refused: prose is forgotten by" in spoken
        assert f"request accept one --run {run.run}" in spoken
    aside = sum(tokens(each.amounts) for each in home.events(ModelRejected))
    assert tokens(home.pipeline().set_aside) == aside > 0
    assert home.pipeline().pending == {}

    more = run_over(home, "more", 4)
    told = specification(home, more.run)
    assert positions(told["past"]) == prose
    assert told["plan"]["start"]["checkpoint"]["sha256"] == base.trunk.sha256
    assert positions(told["new"]).isdisjoint(prose)
    assert len(told["new"]) == 1

    home.request("promote", run=more.run, reason="we are in a hurry")
    assert home.wait_for(RunResumed).forced
    assert home.wait_for(ModelPromoted, 2).model_version == 2
    home.wait_for(RunSucceeded, 4)
    report(home, 2, 0.7, 0.72, 0.68)
    back = home.wait_for(ModelRolledBack)
    assert (back.withdrawn_version, back.model_version, back.run) == (2, 1, more.run)
    decided = home.wait_for(DecisionMade, condition=lambda decision: decision.verdict == "rolled_back")
    assert (decided.policy, decided.inputs["mean"], decided.inputs["mean_before"]) == ("promotion", 0.7, 0.9)
    new = home.wait_for(PlanFixed, condition=lambda fixed: fixed.run == more.run).plan.new
    assert tokens(home.pipeline().set_aside) == aside + tokens(new)

    spoken = said(home, capsys, "explain", more.run)
    assert f"{more.run}: an increment that was promoted: version 2, and was rolled back" in spoken
    assert "The candidate of" in spoken
    assert "we are in a hurry" in spoken
    assert "Version 2 does worse than version 1, which is champion again: evaluation.accuracy is 0.7" in spoken
    champions = said(home, capsys, "champions", "one")
    assert "we are in a hurry" in champions
    assert champions.count("version 1: ") == 2

    noise = refused[0]
    home.request("accept", run=noise.run)
    again = home.wait_for(RunStarted, 5)
    home.wait_for(StageStarted, condition=lambda stage: (stage.run, stage.stage) == (again.run, "train"))
    told = specification(home, again.run)
    assert positions(told["new"]) == positions(specification(home, noise.run)["new"])
    assert positions(told["past"]) == prose
    assert told["plan"]["start"]["checkpoint"]["sha256"] == base.trunk.sha256
