"""Replay: what is the same, what a version explains, what is a bug, and what is no journal."""

import random
from collections.abc import Iterable
from datetime import timedelta

import pytest
from msgspec.structs import replace

from daemon.core.errors import JournalCorrupt
from daemon.core.events import ConfigurationChanged, DaemonStarted, DecisionMade, Record, RunStarted, Verb
from daemon.core.state import State, dump, fingerprint
from daemon.core.transition import REDUCER_VERSION, evolve
from daemon.journal.base import Snapshot
from daemon.replay import KEPT, in_force, replay
from policies.promotion import Promotion
from policies.rewarm_replay import RewarmReplay
from tests.golden.scenarios import GROW, HEAL, JUDGE, one
from tests.golden.tape import Tape, read, write

GROWERS = (
    GROW,
    "{kind: rewarm_replay, after_tokens: 100, max_age: PT2H, expires_after: PT1H, priority: 1}",
    "{kind: rewarm_replay, after_tokens: 300, max_age: PT30M, schedule: infinite}",
)
RENEWERS = (
    "{kind: periodic_retraining, after_increments: 2, from: scratch}",
    "{kind: periodic_retraining, every: PT5H, priority: 2}",
    "{kind: periodic_retraining, cron: '15 */2 * * *', timezone: Europe/Berlin, catch_up: all}",
)
JUDGES = (JUDGE, "{kind: promotion, approval: undecided}", "{kind: promotion, approval: always}")
VERBS: tuple[Verb, ...] = ("pause", "retrain", "promote", "rollback", "cancel", "approve", "retry")


@pytest.fixture
def tape() -> Tape:
    """A first model and an increment."""
    made = Tape(one(GROW, HEAL, JUDGE))
    for _ in range(2):
        made.arrive(120)
        made.finish()
    return made


def snapshot(records: Iterable[Record], reducer: int = REDUCER_VERSION) -> Snapshot:
    """Return a snapshot of the fold."""
    state = State()
    for record in records:
        state = evolve(state, record)
    data = dump(state)
    return Snapshot(position=state.position, reducer=reducer, hash=fingerprint(data), state=data)


def decisions(records: list[Record], policy: str) -> list[int]:
    """Return where a policy's decisions are."""
    return [n for n, r in enumerate(records) if isinstance(r.event, DecisionMade) and r.event.policy == policy]


def retold(records: list[Record], index: int, **changes: object) -> list[Record]:
    """Return the records with another decision at an index."""
    event = records[index].event
    assert isinstance(event, DecisionMade)
    told = replace(event, **changes)
    return [*records[:index], replace(records[index], event=told), *records[index + 1 :]]


def test_what_was_just_written_is_the_same(tape: Tape) -> None:
    """Every fact is answered by the stored records, and the state is the one that the writer had."""
    found = replay(tape.records)
    assert found.good
    assert (found.same, found.differs, found.changed) == (found.facts, 0, {})
    assert found.hash == fingerprint(dump(tape.state))
    assert found.decisions == sum(isinstance(record.event, DecisionMade) for record in tape.records)


def configuration(dice: random.Random) -> str:
    """Draw the policies of a pipeline, in any order."""
    policies = [dice.choice(GROWERS), dice.choice(RENEWERS), dice.choice(JUDGES), HEAL]
    return one(*dice.sample(policies, dice.randint(3, 4)))


def step(tape: Tape, dice: random.Random) -> None:
    """Let something happen: most of the time the stage that is ordered succeeds."""
    pipeline = tape.of()
    ordered = pipeline.active is not None and pipeline.active.order is not None
    what = dice.choice([*["succeed"] * 14, *["arrive"] * 5, "fail", "die", "drain", "wait", "sleep", "ask"])
    if what == "arrive":
        tape.arrive(dice.randint(10, 200), dice.choice(["prose", "code"]))
    elif what == "wait":
        tape.wait(timedelta(minutes=dice.choice([1, 200, 600])))
    elif what == "sleep":
        tape.sleep(timedelta(hours=30))
        tape.start(configuration(dice))
    elif what == "ask":
        tape.request("resume" if pipeline.paused else dice.choice(VERBS))
    elif ordered and what == "succeed":
        mean = dice.choice([-0.1, 0.1])
        told = dice.choice([None, {}, {"prose": (mean, mean - 0.05, mean + 0.05)}])
        tape.succeed(shift=dice.choice([None, 0.001, 0.9]), differences=told)
    elif ordered and what == "fail":
        tape.fail(dice.choice(["transient", "user_error"]))
    elif ordered and what in ("die", "drain"):
        tape.interrupt("died" if what == "die" else "drain")


@pytest.mark.parametrize("seed", range(12))
def test_no_history_that_was_recorded_differs(seed: int) -> None:
    """Whatever happened under whatever policies, told from its text again: every answer is the one that is stored."""
    dice = random.Random(seed)
    tape = Tape(configuration(dice))
    for _ in range(120):
        step(tape, dice)
    found = replay(read(write(tape.records)))
    assert (found.same, found.differs, found.changed) == (found.facts, 0, {})
    assert found.hash == fingerprint(dump(tape.state))
    assert sum(isinstance(record.event, RunStarted) for record in tape.records) > 1


def test_an_empty_journal_is_good() -> None:
    """Nothing was decided, so nothing is wrong."""
    assert replay([]).good


# ------------------------------------------------------------------------------------------- snapshots


def test_snapshots_are_checked_against_the_fold(tape: Tape) -> None:
    """A good one is good; one of another history and one whose bytes changed are not, each told apart."""
    good = snapshot(tape.records[:10])
    other = replace(snapshot(tape.records[:11]), position=12)
    broken = replace(snapshot(tape.records[:20]), state=b"{}")
    found = replay(tape.records, [good, other, broken])
    assert [(check.position, check.good) for check in found.snapshots] == [(10, True), (12, False), (20, False)]
    assert found.snapshots[1].kept == other.hash
    assert found.snapshots[2].kept == "damaged"
    assert not found.good


# ------------------------------------------------------------------------------------------- differences


def test_another_decision_is_a_bug(tape: Tape) -> None:
    """The difference names position, policy and both decisions; everything after it is judged by itself."""
    at = decisions(tape.records, "rewarm_replay")[-2]
    records = retold(tape.records, at, verdict="moonstruck")
    found = replay(records)
    assert (found.differs, found.changed) == (1, {})
    (difference,) = found.differences
    assert (difference.verdict, difference.position, difference.policy) == ("differs", at + 1, "rewarm_replay")
    assert difference.stored == records[at]
    assert difference.recomputed == tape.records[at]


def test_the_state_goes_on_from_what_is_stored(tape: Tape) -> None:
    """A run that started with other numbers than today's keeps them: only its own fact differs."""
    at = next(n for n, record in enumerate(tape.records) if isinstance(record.event, RunStarted))
    event = tape.records[at].event
    assert isinstance(event, RunStarted)
    limits = replace(event.plan.limits, heartbeat=1.0)
    records = list(tape.records)
    records[at] = replace(records[at], event=replace(event, plan=replace(event.plan, limits=limits)))
    found = replay(records)
    # The plan that is fixed after the probe comes from the run's: it is recomputed from the stored one.
    assert {difference.fact for difference in found.differences} == {"data.arrived", "stage.succeeded"}
    upto = replay(records[: at + 1], whole=False)
    assert upto.hash == snapshot(records[: at + 1]).hash != snapshot(tape.records[: at + 1]).hash


def test_a_record_that_is_missing_or_too_much_differs(tape: Tape) -> None:
    """A decision that today's code would not make, and one that it would, are both found."""
    at = decisions(tape.records, "rewarm_replay")[0]
    extra = replace(tape.records[at], position=at + 2, id="1.1")
    rest = [replace(r, position=r.position + 1, cause=r.cause and r.cause + 1) for r in tape.records[at + 1 :]]
    found = replay([*tape.records[: at + 1], extra, *rest[:1]])
    assert (found.differences[0].stored, found.differences[0].recomputed) == (extra, None)
    short = [tape.records[0], *(replace(r, position=r.position - 1) for r in tape.records[2:3])]
    found = replay(short)
    assert found.differences[0].stored is None


def test_only_so_many_differences_are_kept(tape: Tape) -> None:
    """The first ones are shown, all are counted, and bugs are not crowded out by what is explained."""
    for _ in range(KEPT + 5):
        tape.arrive(120)
        tape.finish()
    records = tape.records
    for at in decisions(records, "promotion"):
        records = retold(records, at, reason="moon")
    found = replay(records)
    assert found.differs == KEPT + 7
    assert len(found.differences) == KEPT


# ------------------------------------------------------------------------------------------- explanations


def test_another_version_of_the_policy_explains(tape: Tape, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a policy of a new version says otherwise has changed; the others are still held to their word."""
    monkeypatch.setattr(RewarmReplay, "version", 7)
    found = replay(tape.records)
    assert (found.differs, found.good) == (0, True)
    assert list(found.changed) == ["rewarm_replay had version 3, now it has 7"]
    at = decisions(tape.records, "promotion")[0]
    assert replay(retold(tape.records, at, reason="moon")).differs == 1
    monkeypatch.undo()
    monkeypatch.setattr(Promotion, "version", 7)
    both = retold(tape.records, decisions(tape.records, "rewarm_replay")[3], reason="moon")
    assert replay(both).differs == 1


def test_another_reducer_explains(tape: Tape) -> None:
    """What was decided on a state that was folded otherwise has changed; also the configuration told at that start."""
    records = [
        replace(r, event=replace(r.event, reducer=1)) if isinstance(r.event, DaemonStarted) else r for r in tape.records
    ]
    found = replay(retold(records, 1, reason="moon"))  # the answer to the configuration, before the start is told
    why = f"the reducer had version 1, now it has {REDUCER_VERSION}"
    assert (found.differs, found.changed) == (0, {why: 1})


def test_the_last_answer_of_an_older_reducer_is_its_own(tape: Tape) -> None:
    """A start of today's reducer says nothing about the facts before it."""
    records = [
        replace(r, event=replace(r.event, reducer=1)) if isinstance(r.event, DaemonStarted) else r for r in tape.records
    ]
    tape.records[:] = records
    tape.arrive(10)
    tape.arrive(120)
    at = len(tape.records) - 1
    while not isinstance(tape.records[at].event, DecisionMade):
        at -= 1
    tape.start(one(GROW, HEAL, JUDGE))
    found = replay(retold(tape.records, at, reason="moon"))
    assert (found.differs, sum(found.changed.values())) == (0, 1)


def test_a_configuration_that_reads_otherwise_explains(tape: Tape) -> None:
    """Settings that today's code does not know, a kind that is gone, or a setting that was not there then."""
    changed = tape.records[0].event
    assert isinstance(changed, ConfigurationChanged)
    (grow, *rest) = changed.pipelines["p"].policies
    for configuration, why in (
        ('{"kind": "rewarm_replay", "moon": 1}', "cannot be made of its configuration today"),
        ('{"kind": "moonlight"}', "cannot be made of its configuration today"),
        ('{"kind": "rewarm_replay", "after_tokens": 100}', "has other settings now than its stored configuration"),
    ):
        policies = (replace(grow, configuration=configuration), *rest)
        pipelines = {"p": replace(changed.pipelines["p"], policies=policies)}
        _, news = in_force(replace(changed, pipelines=pipelines))
        assert why in news["p", "rewarm_replay"]
    told = replace(
        tape.records[0], event=replace(changed, pipelines={"p": replace(changed.pipelines["p"], policies=())})
    )
    assert replay([told, *tape.records[1:]]).differs > 0  # no policy is configured: nothing explains its decisions


# ------------------------------------------------------------------------------------------- cuts and tears


def test_a_cut_amid_the_consequences_is_no_difference(tape: Tape) -> None:
    """Up to any position, what is there is the same, and the hash is that of the fold up to there."""
    for end in range(1, len(tape.records)):
        found = replay(tape.records[:end], whole=False)
        assert found.good
        assert not found.changed
        assert found.hash == snapshot(tape.records[:end]).hash


def test_a_gap_is_told(tape: Tape) -> None:
    """A missing record ends the replay with its position."""
    with pytest.raises(JournalCorrupt, match="position 5 is missing before 6"):
        replay(tape.records[:4] + tape.records[5:])


def test_a_consequence_without_its_fact_is_told(tape: Tape) -> None:
    """A record that follows from another fact than the one before it is no record of rewarm's."""
    records = [*tape.records[:1], replace(tape.records[1], cause=9)]
    with pytest.raises(JournalCorrupt, match="Record 2 follows from 9"):
        replay(records)


def test_what_a_retry_brought_in_is_a_fact(tape: Tape) -> None:
    """It names the request as its cause, and is no consequence that could be recomputed."""
    tape.request("retry", dead_letter=1)
    tape.tell(tape.records[2].event, None, source="/crawler", cause=tape.state.position)
    found = replay(tape.records)
    assert found.same == found.facts


def test_progress_is_told(tape: Tape, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits is told the position now and then."""
    monkeypatch.setattr("daemon.replay.STEP", 10)
    told: list[int] = []
    replay(tape.records, (), told.append)
    assert told == list(range(10, len(tape.records) + 1, 10))
