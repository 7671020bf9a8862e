"""Training on two processes: the losses of one, the same bits when resumed, and an end for every way to fail."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from safetensors.torch import load_file

from daemon.core.events import AnyEvent, CheckpointSaved, StageFailed, StageInterrupted, StageSucceeded
from daemon.core.plans import Engine, Limits, Optimiser, Plan
from stages.run_folder import Shard, held, holder, lines
from stages.training.parallel.agent import MEETING
from stages.training.parallel.rank import STORE

Begin = Callable[..., Path]
Ended = Callable[[Path], int]
Told = Callable[[Path], list[AnyEvent]]
MakePlan = Callable[..., Plan]
Place = Callable[..., Path]
Attempt = Callable[..., Path]
PATIENCE = 20.0

STEPS = 16
ONE, DDP, FSDP = Engine(), Engine(processes=2), Engine(processes=2, sharding="fsdp2")
EVERYTHING = Optimiser(average=0.9, skip_sigma=50.0)


@pytest.fixture
def attempt(
    begin: Begin, place: Place, make_base_plan: MakePlan, new: tuple[Shard, ...], past: tuple[Shard, ...]
) -> Attempt:
    """Begin an attempt of a short training: (run, engine, *fault, attempt, after, limits) → folder."""

    def attempt(
        run: str,
        engine: Engine,
        *fault: object,
        number: int = 1,
        after: Path | None = None,
        limits: Limits = Limits(heartbeat=30.0, checkpoint_every=1e-6),  # noqa: B008 - frozen
        **training: object,
    ) -> Path:
        settings = {"tokens": STEPS * 4 * 32, "replay": 0.25, "adamw": EVERYTHING, **training}
        plan = replace(make_base_plan(engine=replace(engine, evaluations=2), **settings), limits=limits)
        resume_from = () if after is None else (str(after),)
        folder = place("train", number, run=run, plan=plan, new=new, past=past, resume_from=resume_from)
        return begin(folder, *fault)

    return attempt


def curve(folder: Path) -> list[dict[str, float]]:
    """Return the points of an attempt's curves, without the time."""
    points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in point.items() if name != "time"} for point in points]


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint."""
    return {
        f"{file.stem}/{key}": value
        for file in sorted((folder / name).glob("*.safetensors"))
        for key, value in load_file(file).items()
    }


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Return whether two checkpoints are the same, bit by bit."""
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def alike(folder: Path, other: Path) -> None:
    """Assert that two attempts' curves are the same to 1e-5, from where both have points."""
    ours, theirs = ({point["step"]: point for point in curve(each)} for each in (folder, other))
    steps = ours.keys() & theirs.keys()
    assert STEPS in steps
    for step in steps:
        assert ours[step] == pytest.approx(theirs[step], rel=1e-4, abs=1e-5), step
        for name in ("loss", "eval_code", "eval_prose"):
            assert ours[step].get(name, 0.0) == pytest.approx(theirs[step].get(name, 0.0), rel=0, abs=1e-5), step


def test_two_processes_learn_what_one_does(attempt: Attempt, ended: Ended, read_outcome: Told) -> None:
    """Replicas and shards give one process's losses, with every switch; resumed they give their own bits again.

    Two trainings run at once. One is killed in a rank, one is stopped; each goes on in another attempt, and what one
    kind of team has saved another resumes, one process too.
    """
    # To save reshards the weights; nothing saves right after a measurement here, which must reshard them as well.
    seldom = Limits(heartbeat=30.0)
    one, ddp = attempt("one", ONE), attempt("ddp", replace(DDP, accumulate=2))
    fsdp = attempt("fsdp", FSDP, limits=seldom)
    assert [ended(each) for each in (one, ddp, fsdp)] == [0, 0, 0]
    for folder in (ddp, fsdp):
        alike(folder, one)
        final = read_outcome(folder)[-1]
        assert isinstance(final, StageSucceeded), final
        assert {artefact.name for artefact in final.artefacts} == {"candidate", "trunk", "metrics"}
        assert {MEETING, STORE}.isdisjoint(path.name for path in folder.iterdir())
        for name in ("candidate", "trunk"):
            assert weights(folder, name).keys() == weights(one, name).keys()

    killed = attempt("ddp-2", replace(DDP, accumulate=2), 1, 9, "kill")
    stopped = attempt("fsdp-2", FSDP, 0, 9, "stop")
    assert [ended(killed), ended(stopped)] == [0, 0]
    *_, saved, failed = read_outcome(killed)
    assert isinstance(saved, CheckpointSaved)
    assert isinstance(failed, StageFailed)
    assert failed.failure == "worker_lost", failed.message
    assert "Rank 1 of 2" in failed.message
    *_, saved, interrupted = read_outcome(stopped)
    assert isinstance(saved, CheckpointSaved)
    assert isinstance(interrupted, StageInterrupted)
    assert interrupted.reason == "preempt"

    ddp_again = attempt("ddp-2", replace(DDP, accumulate=2), number=2, after=killed)
    fsdp_again = attempt("fsdp-2", FSDP, number=2, after=stopped)
    alone = attempt("fsdp-2", ONE, number=3, after=stopped)
    assert [ended(each) for each in (ddp_again, fsdp_again, alone)] == [0, 0, 0]
    for resumed, whole in ((fsdp_again, fsdp), (ddp_again, ddp)):
        succeeded = read_outcome(resumed)[-1]
        assert isinstance(succeeded, StageSucceeded)
        assert succeeded.metrics["resumed_at"] > 0
        assert same(weights(resumed, "candidate"), weights(whole, "candidate"))
        assert same(weights(resumed, "trunk"), weights(whole, "trunk"))
    succeeded = read_outcome(alone)[-1]
    assert isinstance(succeeded, StageSucceeded)
    assert succeeded.metrics["resumed_at"] > 0
    alike(alone, one)


def test_the_failure_of_the_first_rank_is_told(attempt: Attempt, ended: Ended, read_outcome: Told) -> None:
    """Its class and its message reach the outcome, not those of the rank that then misses it."""
    folder = attempt("memory", DDP, 1, 2, "memory")
    assert ended(folder) == 0
    failed = read_outcome(folder)[-1]
    assert isinstance(failed, StageFailed)
    assert failed.failure == "out_of_memory"
    assert "Rank 1 of 2: " in failed.message
    assert "accumulate" in failed.message


def alive(session: int) -> list[str]:
    """Return the processes of a session that are not gone."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of = stat.read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if int(of) == session and state != "Z":
            found.append(stat.parent.name)
    return found


def test_no_rank_outlives_the_attempt(attempt: Attempt, ended: Ended) -> None:
    """Where a rank stands still the attempt's alarm ends all; who kills the attempt's process kills the ranks with it.

    The lock is held until the last of them is gone.
    """
    halted = attempt("halt", DDP, 1, 2, "halt", limits=Limits(heartbeat=2.5))
    killed = attempt("parent", DDP, 1, 2, "parent")
    for folder, code in ((killed, -signal.SIGKILL), (halted, -signal.SIGALRM)):
        assert ended(folder) == code
        leader = holder(folder)
        assert leader is not None
        deadline = time.monotonic() + PATIENCE
        while held(folder):
            assert time.monotonic() < deadline
        assert alive(leader.pid) == []
        assert len(lines(folder)) == 1  # it began; that it ended is for the undertaker to say
