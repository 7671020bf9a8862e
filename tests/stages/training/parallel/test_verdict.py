"""Why the ranks ended, out of what they told and the order in which they went."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from torch import nn

from daemon.core.errors import StageError
from daemon.core.events import AnyEvent, CheckpointSaved
from daemon.core.plans import Checkpoint, Document, Engine, Plan
from stages.base import Context, Result, Stopped
from stages.run_folder import Outcome, read_specification
from stages.training.parallel.group import Group, blocks
from stages.training.parallel.launch import Ranks
from stages.training.parallel.wire import Alive, Beat, Born, Done, Failed, Halted, Wire, pair, receive


@pytest.fixture
def context(place: Callable[..., Path], make_base_plan: Callable[..., Plan]) -> Iterator[Context]:
    """An attempt of three processes."""
    folder = place("train", run="verdict", plan=make_base_plan(engine=Engine(processes=3)))
    outcome = Outcome(folder)
    yield Context(read_specification(folder), folder, outcome, time.monotonic)
    signal.setitimer(signal.ITIMER_REAL, 0)
    outcome.close()


def failed(rank: int, *, peer: bool) -> Failed:
    """Return what a rank says at its end."""
    failure = "transient" if peer else "bad_sample"
    return Failed(rank=rank, failure=failure, message=f"said by {rank}", peer=peer)  # type: ignore[arg-type]


def end_of(context: Context, *happened: Failed | int) -> StageError:
    """Return the verdict after ranks have told of their failure, or (a number) were gone."""
    ranks = Ranks(context)
    children = [subprocess.Popen(["/bin/sleep", "60"]) for _ in range(3)]
    for rank, child in enumerate(children):
        ranks.take(Born(rank=rank, pid=child.pid))
    descriptors = ranks.new()
    for each in happened:
        if isinstance(each, Failed):
            ranks.take(each)
        else:
            ranks.ended(descriptors[each])
    for child in children:
        child.kill()
        child.wait()
    ranks.close()
    with pytest.raises(StageError) as caught:
        ranks.verdict()
    return caught.value


def test_a_leader_that_lives_sets_the_alarm_anew(context: Context) -> None:
    """It has come no further, but a part that takes long is done."""
    signal.setitimer(signal.ITIMER_REAL, 5.0)
    Ranks(context).take(Alive())
    assert signal.getitimer(signal.ITIMER_REAL)[0] > context.specification.plan.limits.heartbeat - 5


def test_a_rank_that_says_why_goes_before_those_that_miss_it(context: Context) -> None:
    """Others lose their connection to it, or are ended without a word."""
    error = end_of(context, failed(2, peer=True), failed(1, peer=False), 1, 0, 2)
    assert error.failure == "bad_sample"
    assert str(error) == "Rank 1 of 3: said by 1"


def test_where_a_rank_failed_is_told(context: Context) -> None:
    """Step and documents come through to the attempt's end."""
    documents = (Document(arrival=2, number=7),)
    error = end_of(context, replace(failed(1, peer=False), step=9, documents=documents), 1, 0, 2)
    assert (error.step, error.documents) == (9, documents)


def test_the_first_to_go_without_a_word_is_the_lost_one(context: Context) -> None:
    """Those that are ended after it go without a word too."""
    error = end_of(context, 1, failed(2, peer=True), 2, 0)
    assert error.failure == "worker_lost"
    assert str(error).startswith("Rank 1 of 3")


def test_ranks_that_lose_each_other_are_tried_again(context: Context) -> None:
    """Where all tell of a peer that is gone and none is, the connection is to blame."""
    assert end_of(context, failed(0, peer=True), failed(1, peer=True), failed(2, peer=True), 0, 1, 2).failure == (
        "transient"
    )


def test_what_the_leader_said_last_counts(context: Context) -> None:
    """A result, or that all stopped, whatever becomes of the processes afterwards."""
    ranks = Ranks(context)
    ranks.take(Done(result=Result(metrics={"loss": 2.0})))
    ranks.take(failed(1, peer=True))
    assert ranks.verdict().metrics == {"loss": 2.0}
    ranks.take(Halted(reason="drain"))
    with pytest.raises(Stopped, match="drain"):
        ranks.verdict()


def test_the_parent_writes_what_the_ranks_tell(
    context: Context, read_outcome: Callable[[Path], list[AnyEvent]]
) -> None:
    """Through one wire, whole and in order, numbers that are none included; a beat never stops the parent."""
    own, descriptor = pair()
    wire = Wire(descriptor)
    saved = CheckpointSaved(**context.names, step=3, checkpoint=Checkpoint(path="a", sha256="0" * 64))
    wire.write(saved)
    wire.send(Beat(step=3, steps=9, metrics={"loss": float("nan")}))
    wire.send(Halted(reason="drain"))
    (context.folder / "stop").write_text("drain")
    ranks = Ranks(context)
    told = receive(own)
    for message in told:
        ranks.take(message)
    assert [type(message).__name__ for message in told] == ["Fact", "Beat", "Halted"]
    assert read_outcome(context.folder)[0] == saved
    own.close()
    with pytest.raises(BrokenPipeError):
        wire.send(Halted(reason="drain"))
    wire.close()


def test_blocks_are_the_members_of_outermost_lists() -> None:
    """Of a list in a block, nothing; nor what has no weights."""
    inner = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    block = nn.Sequential(nn.Linear(2, 2), inner)
    body = nn.ModuleDict({"layers": nn.ModuleList([block, nn.ReLU()])})
    assert blocks(nn.ModuleDict({"embedding": nn.Embedding(2, 2), "body": body})) == [block]


def test_a_batch_without_equal_parts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are shared in order of rank."""
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 1)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    assert Group().share([1, 2, 3, 4]) == [3, 4]
    with pytest.raises(StageError, match="3 rows has no 2 equal parts") as caught:
        Group().share([1, 2, 3])
    assert caught.value.failure == "user_error"
