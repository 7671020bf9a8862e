"""What may go: whatever history there was, nothing that anybody could still need."""

import random
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from daemon.core.events import (
    DataArrived,
    DataIngested,
    ModelRejected,
    RunHeld,
    RunStarted,
    RunSucceeded,
    StageInterrupted,
)
from daemon.core.plans import Checkpoint
from daemon.core.state import Order
from daemon.retention.history import History, Version
from daemon.retention.rules import Removal, removals, touches
from daemon.settings import RetentionSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.core.decisions import Policies
    from tests.daemon.core.conftest import Parts
    from tests.daemon.retention.conftest import Story

TINY = timedelta(microseconds=1)
ALL = RetentionSettings(checkpoints=TINY, runs=None, shards=TINY, models=0)
OPERATIONS = (
    *("arrive",) * 5,
    *("succeed",) * 14,
    *("begin", "checkpoint", "checkpoint", "fail", "die", "stop", "fire"),
    *("approve", "promote", "rollback", "cancel", "accept", "withdraw", "data", "data", "resume", "retry"),
    *("sweep", "sweep", "sweep"),
    "configure",
)
Steps = list[tuple[str, int]]
steps = st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 10**6)), min_size=30, max_size=100)


def due(story: "Story", given: RetentionSettings) -> dict[str, Removal]:
    """Return what may go now, by its identity."""
    history = History()
    history.read(story.journal)
    return {each.identity: each for each in removals(story.state, history, story.now, given)}


def step(story: "Story", make_policies: "Callable[[str], Policies]", operation: str, number: int) -> None:  # noqa: C901, PLR0912 - a case each
    """Do what an operation says, if it can be done; `number` decides everything else."""
    name = "pq"[number % 2]
    run = story.of(name).active
    ordered = run is not None and run.order is not None
    match operation:
        case "arrive":
            story.arrive(10 + number % 190, ("prose", "code")[number // 2 % 2], name)
        case "begin" if ordered:
            story.begin(name)
        case "succeed" if ordered:
            story.succeed(name, gain=0.1 - number % 3 * 0.1)
        case "checkpoint" if ordered:
            story.checkpoint(number % 100 + 1, name)
        case "fail" if ordered:
            story.fail(name)
        case "die" if ordered:
            story.fact(StageInterrupted(**story.names(name), reason="died"), name)
        case "stop" if ordered and run is not None and run.stop is not None:
            story.stopped(name)
        case "fire" if story.of(name).timers:
            story.fire(name)
        case "approve" | "promote" | "rollback" | "cancel" | "retry":
            story.request(operation, name)
        case "accept" | "withdraw":
            known = [r.event.run for r in story.records if isinstance(r.event, ModelRejected) and r.pipeline == name]
            if known:
                story.settle(operation, known[number % len(known)], name)
        case "data":
            came = [r.position for r in story.records if isinstance(r.event, DataArrived) and r.pipeline == name]
            if came:
                story.withdraw(came[number % len(came)], name)
        case "configure":
            verdict = ("hold", "reject", "promote")[number % 3]
            both = make_policies(verdict)
            story.configure(both if number % 5 else {"p": both["p"]}, slots=1 + number % 2)
        case "sweep":
            wait = timedelta(seconds=number % 4 * 5) + TINY
            story.now += wait * (number % 3)
            story.sweep(
                RetentionSettings(checkpoints=wait, runs=wait if number % 2 else None, shards=wait, models=number % 3)
            )
        case _:
            pass


def play(story: "Story", make_policies: "Callable[[str], Policies]", history: Steps) -> None:
    """Begin, and do one operation after the other; after each nothing is missing."""
    story.configure(make_policies("hold"), slots=2)
    for number, (operation, choice) in enumerate(history):
        step(story, make_policies, operation, choice)
        missing = story.missing()
        assert not missing, (number, operation, choice, missing)


@settings(max_examples=40)
@given(history=steps)
def test_nothing_that_could_be_needed_goes(
    make_story: "type[Story]", make_policies: "Callable[[str], Policies]", history: Steps
) -> None:
    """After every step of any history: what runs, could start, be taken up or be rolled back to finds its files."""
    play(make_story(), make_policies, history)


def test_of_every_kind_something_goes(make_story: "type[Story]", make_policies: "Callable[[str], Policies]") -> None:
    """A long history in which sweeps remove runs, checkpoints, shards and models, and nobody misses anything."""
    source = random.Random(0)
    story = make_story()
    play(story, make_policies, [(source.choice(OPERATIONS), source.randrange(10**6)) for _ in range(300)])
    assert set(story.removed) == {"run", "checkpoints", "shard", "model"}
    assert min(story.removed.values()) > 3


def test_without_periods_nothing_goes(story: "Story") -> None:
    """Where every setting is null everything is kept for ever."""
    grown(story, 3)
    assert due(story, RetentionSettings(checkpoints=None)) == {}


def grown(story: "Story", versions: int) -> None:
    """Promote so many models, each from an arrival of its own."""
    for _ in range(versions):
        story.arrive()
        story.finish()


def test_ages_count_from_the_end_of_a_run(story: "Story") -> None:
    """Checkpoints go a day after it, the whole folder after a week; the rule says so."""
    grown(story, 1)
    given = RetentionSettings(checkpoints=timedelta(days=1), runs=timedelta(days=7))
    run = story.all(RunSucceeded)[0].run
    story.now += timedelta(days=1) - TINY
    assert due(story, given) == {}
    story.now += TINY
    (removal,) = due(story, given).values()
    assert removal.identity == f"expired:checkpoints:{run}"
    assert removal.paths == (f"runs/{run}/*/*/checkpoints", f"runs/{run}/*/*/trunk")
    assert removal.rule.startswith("checkpoints P1D: the run ended (promoted) at 2026-03-")
    story.now += timedelta(days=6)
    (removal,) = due(story, given).values()
    assert (removal.what, removal.paths, removal.run, removal.pipeline) == ("run", (f"runs/{run}",), run, "p")


def test_the_trunk_of_a_rejected_candidate_is_kept(make_story: "type[Story]", parts: "type[Parts]") -> None:
    """It is kept to be looked at as long as the run's folder (rule 13): only a promoted one has a copy."""
    story = make_story()
    story.configure({"p": (parts.Starter(), parts.Gate("reject"))})
    story.arrive()
    story.finish()
    story.now += timedelta(days=2)
    (removal,) = due(story, RetentionSettings()).values()
    assert [path.rpartition("/")[2] for path in removal.paths] == ["checkpoints"]


def test_a_candidate_that_another_replaced_has_ended(make_story: "type[Story]", parts: "type[Parts]") -> None:
    """A held run lives; when a later one is held in its place it is over from then on."""
    story = make_story()
    story.configure({"p": (parts.Starter(), parts.Gate("hold"))})
    story.arrive()
    story.finish()
    first = story.all(RunHeld)[0].run
    story.now += timedelta(days=400)
    assert due(story, RetentionSettings(runs=TINY)) == {}
    story.arrive()
    story.finish()
    at = story.now
    story.now += timedelta(days=1)
    assert list(due(story, RetentionSettings(runs=timedelta(days=1)))) == [f"expired:run:{first}"]
    story.now = at + timedelta(days=1) - TINY
    assert due(story, RetentionSettings(runs=timedelta(days=1))) == {}


def test_versions_beyond_those_in_use(story: "Story") -> None:
    """Champion, previous and base stay, and so many of the newest others."""
    grown(story, 6)
    story.now += timedelta(hours=1)

    def gone(models: int) -> list[str]:
        found = due(story, RetentionSettings(checkpoints=None, models=models))
        return sorted(removal.paths[0] for removal in found.values())

    assert gone(0) == ["models/p/v2", "models/p/v3", "models/p/v4"]
    assert gone(2) == ["models/p/v2"]
    assert gone(3) == []
    story.request("rollback")
    assert gone(0) == ["models/p/v2", "models/p/v3", "models/p/v4", "models/p/v6"]


def test_a_number_that_may_be_given_again_is_not_touched(story: "Story") -> None:
    """A promotion that did not count leaves a number that the next one takes: its folder may be in the making."""
    grown(story, 2)
    story.arrive()
    story.until("promote")
    late = story.promotion()
    story.fail()
    story.fact(late)
    assert story.of().versions == 2
    assert due(story, RetentionSettings(checkpoints=None, models=0)) == {}


def test_a_model_that_lies_elsewhere_is_not_touched(story: "Story") -> None:
    """Whatever path a record names: only what lies below models/ is a version of ours."""
    history = History()
    grown(story, 4)
    history.read(story.journal)
    history.versions["p"]["elsewhere/v2"] = Version(number=2, path="elsewhere/v2", run="p-2", position=1)
    found = removals(story.state, history, story.now, RetentionSettings(checkpoints=None, models=0))
    assert [removal.paths for removal in found] == [("models/p/v2",)]


def test_what_the_state_names_stays_whatever_the_history_says(story: "Story") -> None:
    """A run that lives, and a run in whose folder a champion's files lie, are kept though they seem to have ended."""
    grown(story, 1)
    ended = story.all(RunSucceeded)[0].run
    story.arrive()
    history = History()
    history.read(story.journal)
    history.endings[story.run().run] = history.endings[ended]
    given = RetentionSettings(runs=TINY)
    assert [removal.name for removal in removals(story.state, history, story.now, given)] == [ended]
    champion = story.of().champion
    assert champion is not None
    trunk = Checkpoint(path=f"runs/{ended}/train/1/trunk", sha256=champion.sha256)
    pipelines = {"p": replace(story.of(), champion=replace(champion, trunk=trunk))}
    assert removals(replace(story.state, pipelines=pipelines), history, story.now, given) == []


SHARDS = RetentionSettings(checkpoints=None, shards=timedelta(days=1))


def shards(story: "Story") -> list[str]:
    """Return the shards that may go two days later."""
    now = story.now
    story.now += timedelta(days=2)
    found = [removal.paths[0] for removal in due(story, SHARDS).values()]
    story.now = now
    return found


def test_shards_of_rejected_arrivals(make_story: "type[Story]", parts: "type[Parts]") -> None:
    """They stay while a person may accept the arrivals; once these are withdrawn they go, a period later."""
    story = make_story()
    story.configure({"p": (parts.Starter(), parts.Gate("reject"))})
    story.arrive()
    story.finish()
    run = story.all(RunSucceeded)[0].run
    assert shards(story) == []
    story.settle("withdraw", run, "p")
    assert shards(story) == ["shards/00/2"]
    assert due(story, SHARDS) == {}


def test_shards_of_accepted_arrivals(make_story: "type[Story]", parts: "type[Parts]") -> None:
    """Accepted they are pending, and then the past of a champion."""
    story = make_story()
    story.configure({"p": (parts.Starter(), parts.Gate("reject"))})
    story.arrive()
    story.finish()
    story.policies = {"p": (parts.Starter(), parts.Gate())}
    story.settle("accept", story.all(RunSucceeded)[0].run, "p")
    story.finish()
    assert story.of().champion is not None
    assert shards(story) == []


def test_shards_of_pending_arrivals(story: "Story") -> None:
    """A run that failed after ingest gives its arrivals back: their shards wait with them."""
    story.arrive()
    story.succeed()
    story.request("cancel")
    story.stopped()
    assert story.of().active is None
    assert shards(story) == []
    story.withdraw(2, "p")
    assert shards(story) == ["shards/00/2"]


def test_a_withdrawal_during_a_run_counts_from_its_end(story: "Story") -> None:
    """The run may read the shard as long as it lives."""
    story.arrive()
    story.succeed()
    story.withdraw(2, "p")
    story.now += timedelta(days=2)
    story.request("cancel")
    story.stopped()
    assert due(story, SHARDS) == {}
    assert shards(story) == ["shards/00/2"]


def test_only_folders_of_shards_go(story: "Story") -> None:
    """Whatever a record names as a manifest: the folder of all shards is none, nor is one elsewhere."""
    history = History()
    story.arrive()
    story.succeed()
    story.request("cancel")
    story.stopped()
    story.withdraw(2, "p")
    history.read(story.journal)
    (uses,) = history.uses.values()
    history.uses |= {"shards": uses, "models/p/v1": uses}
    found = removals(story.state, history, story.now + timedelta(days=2), SHARDS)
    assert [removal.paths for removal in found] == [("shards/00/2",)]


def test_shards_of_a_model_that_was_rolled_back(story: "Story") -> None:
    """They are no champion's past any more; a run that began before may still read them."""
    grown(story, 2)
    arrival = story.all(DataIngested)[-1].arrival
    story.arrive()
    story.until("probe")
    story.request("rollback")  # the run is to be cancelled, and its process has the shards open
    assert shards(story) == []
    story.stopped()
    story.finish()
    assert shards(story) == [f"shards/00/{arrival % 17}"]


def test_while_somebody_ingests_no_shard_goes(story: "Story") -> None:
    """An ingest that goes on may have found a shard already and not told of it."""
    story.arrive()
    story.succeed()
    story.request("cancel")
    story.stopped()
    story.withdraw(2, "p")
    assert shards(story) == ["shards/00/2"]
    story.arrive()
    assert story.order().stage == "ingest"
    assert shards(story) == []
    story.succeed()
    assert shards(story) == ["shards/00/2"]


def test_what_is_ingested_again_expires_anew(story: "Story") -> None:
    """The id names the last use: a shard that comes again after it went is told of again."""
    story.arrive()
    story.succeed()
    story.request("cancel")
    story.stopped()
    story.withdraw(2, "p")
    story.now += timedelta(days=2)
    (first,) = due(story, SHARDS)
    story.fact(story.ingested(Order(command="c", run=story.all(RunStarted)[0].run, stage="ingest", attempt=2,
                                    resume=False, ordered_at=story.now), 2, "shards/00/2"))  # fmt: skip
    story.now += timedelta(days=2)
    (second,) = due(story, SHARDS)
    assert first != second
    assert first.rpartition(":")[0] == second.rpartition(":")[0] == "expired:shard:00/2"


@pytest.mark.parametrize(
    ("path", "other", "expected"),
    [
        ("runs/a", "runs/a", True),
        ("runs/a", "runs/a/train/1", True),
        ("runs/a/*/*/trunk", "runs/a/train/1/trunk", True),
        ("runs/a/*/*/trunk", "runs/a", True),
        ("runs/a", "runs/ab", False),
        ("runs/a/*/*/trunk", "runs/a/train/1/candidate", False),
        ("models/p/v1", "models/p/v10", False),
    ],
)
def test_paths_that_touch(path: str, other: str, expected: bool) -> None:
    """One is the other, or lies within it; a star is any one name."""
    assert touches(path, other) is expected
