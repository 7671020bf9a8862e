"""A failure that is reported from outside while a stage is at work: one recovery, at once, from the checkpoint."""

import json
import os
import signal
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer

from daemon.core.commands import RunStage
from daemon.core.events import (
    CheckpointSaved,
    DaemonStarted,
    DecisionMade,
    FailureReported,
    Record,
    RunSucceeded,
    StageFailed,
    StageInterrupted,
    StageStarted,
)
from daemon.testing import LAST_STEP, Life
from tests.acceptance.home import SLOW, Home, alive, event, kill

if TYPE_CHECKING:
    from tests.brokers.broker import Broker

pytestmark = pytest.mark.slow
STEPS = "daemon.testing:StepStage"


def lost(identity: str, failure: str = "worker_lost", **told: Any) -> dict[str, Any]:  # noqa: ANN401 - its fields
    """Return the report of a loss."""
    return event("failure.reported", {"failure": failure, "evidence": "no answer", **told}, identity)


def decisions(home: Home, *verdicts: str) -> list[DecisionMade]:
    """Return what the recovery policy decided, or of that what has one of these verdicts."""
    made = [decision for decision in home.events(DecisionMade) if decision.policy == "stage_recovery"]
    return [decision for decision in made if not verdicts or decision.verdict in verdicts]


def record(home: Home, verdict: str) -> Record:
    """Return the first record of a decision with this verdict."""
    return next(r for r in home.records() if isinstance(r.event, DecisionMade) and r.event.verdict == verdict)


def training(home: Home, life: Life | None = None) -> StageStarted:
    """Start a daemon and a run in it; return how its stage began, once it has its checkpoints."""
    home.start(life)
    home.arrive()
    home.wait_for(CheckpointSaved, LAST_STEP)
    return home.wait_for(StageStarted)


def recovered_once(home: Home) -> None:
    """Look that there were two attempts, that the second went on where the first was, and that the run succeeded."""
    home.wait_for(StageStarted, 2)
    home.release()
    home.wait_for(RunSucceeded)
    assert [started.attempt for started in home.events(StageStarted)] == [1, 2]
    assert [ended.attempt for ended in home.events(StageInterrupted)] == [1]
    assert (home.state / "steps").read_text(encoding="ascii") == f"1 0\n2 {LAST_STEP}\n"
    assert len(decisions(home, "retry")) == 1
    assert len(home.notes()) == 1


def test_a_report_ends_a_stopped_stage_long_before_its_heartbeat_would(home: Home) -> None:
    """Five reports bring one recovery, from the checkpoint."""
    home.configure(STEPS)
    stage = training(home)
    os.kill(stage.pid, signal.SIGSTOP)
    for number in range(5):
        home.send(lost(f"loss {number}", run=stage.run, host=stage.host, worker=f"{stage.pid}"))
    home.wait(lambda: not alive(stage.pid), "the stage's end")
    home.wait_for(FailureReported, 5)
    recovered_once(home)
    assert len(decisions(home, "ending")) == 1
    assert home.wait_for(StageInterrupted).message == "It was reported as worker_lost, and its process is gone."


@pytest.mark.parametrize("noticed", ["by its lock", "by its heartbeat"])
def test_what_was_noticed_before_is_not_recovered_again(home: Home, noticed: str) -> None:
    """The attempt's own end came first: five reports of it, named or not, leave the next one alone."""
    home.configure(STEPS, limits={"heartbeat": 1.0})
    stage = training(home)
    if noticed == "by its lock":
        kill(stage.pid)
    else:
        os.kill(stage.pid, signal.SIGSTOP)
    home.wait_for(StageInterrupted)
    for number in range(5):
        named = {"worker": f"{stage.host}/{stage.pid}"} if number % 2 else {}
        home.send(lost(f"loss {number}", run=stage.run, **named))
    home.wait_for(FailureReported, 5)
    recovered_once(home)
    assert decisions(home, "ending") == []


def test_a_daemon_that_is_killed_in_between_recovers_all_the_same(home: Home) -> None:
    """It has killed the attempt and dies before it could say so: the next daemon does, and goes on."""
    home.configure(STEPS)
    stage = training(home, Life(config=str(home.configuration), boundary="dispatch.before_bury"))
    os.kill(stage.pid, signal.SIGSTOP)
    home.send(lost("loss", run=stage.run))
    home.wait(lambda: not alive(stage.pid), "the stage's end")
    home.start()
    recovered_once(home)
    assert len(home.events(DaemonStarted)) == 2


def test_two_pipelines_lose_one_stage(home: Home) -> None:
    """A report ends the attempt of the run that it names; the other pipeline's stage goes on."""
    home.configure(SLOW, pipelines=("one", "two"))
    home.start()
    home.arrive("1")
    home.arrive("2", pipeline="two")
    home.wait_for(StageStarted, 2)
    stages = {started.run.partition("-")[0]: started for started in home.events(StageStarted)}
    home.send(lost("loss", run=stages["one"].run, host=stages["one"].host))
    home.wait_for(RunSucceeded)
    assert alive(stages["two"].pid)
    home.release()
    home.wait_for(RunSucceeded, 2)
    assert [(ended.run, ended.attempt) for ended in home.events(StageInterrupted)] == [(stages["one"].run, 1)]


def listen(home: Home, broker: "Broker", *stages: str) -> str:
    """Configure a home that reads a new topic; return the topic's name."""
    home.configure(*stages)
    topic = broker.topic(prefix="failures")
    content = json.loads(home.configuration.read_text(encoding="utf-8"))
    source = {"kind": "kafka", "bootstrap_servers": [broker.address], "topics": [{"name": topic}]}
    content["sources"].append(source)
    home.configuration.write_text(json.dumps(content), encoding="utf-8")
    return topic


def produce(broker: "Broker", topic: str, events: Iterable[dict[str, Any]]) -> datetime:
    """Write events by a client that is not ours; return when it was told to."""
    producer = Producer({"bootstrap.servers": broker.address, "linger.ms": 0})
    producer.list_topics(topic, timeout=10)  # it is connected: what is measured is the way of the event
    began = datetime.now(UTC)
    for each in events:
        producer.produce(topic, value=json.dumps(each).encode())
    assert producer.flush(10) == 0
    return began


def test_a_loss_that_comes_through_kafka_is_recovered_within_a_second(home: Home, broker: "Broker") -> None:
    """Decided in less than a second after it was produced, once although told five times, and never for another run."""
    topic = listen(home, broker, STEPS)
    stage = training(home)
    os.kill(stage.pid, signal.SIGSTOP)
    began = produce(broker, topic, [lost(f"loss {number}", run=stage.run) for number in range(5)])
    home.wait_for(FailureReported, 5)
    recovered_once(home)
    assert (record(home, "ending").recorded_at - began).total_seconds() < 1
    produce(broker, topic, [lost("too late", run=stage.run), lost("of nobody", run="one-999")])
    home.wait_for(FailureReported, 7)
    assert [decision.reason for decision in decisions(home)[-2:]] == [
        f"Run {stage.run} has ended already (finished).",
        "Run one-999 is not at work (none is active): it ended earlier, or never was.",
    ]
    assert home.pipeline().ignored["failure_of_ended_run"] == 1
    assert home.pipeline().ignored["failure_of_unknown_run"] == 1
    assert len(home.events(StageStarted)) == 2


REFUSING = """
import torch
from stages.training.task import Task

def collate(records):
    return torch.tensor([[float(record["x"])] for record in records])

def make():
    return Task(model=torch.nn.Linear(1, 1), collate=collate, losses=lambda model, x: model(x).squeeze(1) ** 2)
"""


def test_a_document_that_no_retry_mends_is_left_out(home: Home) -> None:
    """A record that the task refuses fails the real training twice at one step; the third attempt is without it."""
    (home.folder / "refusing.py").write_text(REFUSING, encoding="utf-8")
    home.configure("ingest", "train", warm=True)
    content = json.loads(home.configuration.read_text(encoding="utf-8"))
    pipeline = content["pipelines"]["one"]
    pipeline["model"] = {"kind": "module", "factory": "refusing:make"}
    pipeline["policies"][0]["training"] = {"batch": 2, "context": 1}
    home.configuration.write_text(json.dumps(content), encoding="utf-8")
    records = [{"x": None if number == 7 else number} for number in range(20)]
    (home.inbox / "data.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    home.start(environment={"PYTHONPATH": str(home.folder)})
    home.send(event("data.arrived", {"uri": "data.jsonl", "domain": "numbers"}, "1"))
    home.wait_for(RunSucceeded)
    failed = home.events(StageFailed)
    assert [each.failure for each in failed] == ["bad_sample", "bad_sample"]
    assert failed[0].documents == failed[1].documents != ()
    assert failed[0].step == failed[1].step
    assert [decision.verdict for decision in decisions(home)] == ["retry", "quarantine"]
    (command,) = decisions(home, "quarantine")[0].commands
    assert isinstance(command, RunStage)
    assert command.remedy.without == failed[0].documents
