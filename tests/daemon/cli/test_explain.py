"""A run's story, a pipeline's present, and what would be decided now."""

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from daemon.cli.explain import following
from daemon.cli.explain.numbers import compared
from daemon.cli.explain.render import plan_rows, sparkline, surprises
from daemon.cli.explain.why import look
from daemon.cli.plan import foresee
from daemon.core.errors import RewarmError
from daemon.core.events import (
    Carrier,
    FailureReported,
    Numbers,
    OperatorRequested,
    StageInterrupted,
    StageStarted,
)
from daemon.core.plans import Law, ModelSettings, Prediction, Schedule, Training
from daemon.core.state import State
from daemon.journal.sqlite import open_reader
from daemon.story import Story, tell

if TYPE_CHECKING:
    from daemon.config import Configuration
    from tests.daemon.cli.conftest import Chronicle, Command

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def told(chronicle: "Chronicle", run: str) -> Story:
    """Return a run's story."""
    with open_reader(chronicle.configuration.journal) as reader:
        return tell(reader, run)


def champion(chronicle: "Chronicle") -> str:
    """Return the run behind the champion."""
    assert chronicle.pipeline.champion is not None
    return chronicle.pipeline.champion.run


def test_a_story_goes_from_the_arrival_to_the_files(trained: "Chronicle") -> None:
    """The chain of causes: what arrived, what was decided, planned, measured, judged, and what came of it."""
    story = told(trained, champion(trained))

    assert [(a.domain, a.id, a.duplicates) for a in story.arrivals] == [("code", "code-2", 2)]
    assert story.arrivals[0].exact is not None
    assert story.arrivals[0].exact.tokens == 599_000
    assert story.decision is not None
    assert (story.decision.policy, story.decision.verdict) == ("rewarm_replay", "due")
    assert story.decision.inputs["tokens"] == 600_000
    assert story.decision.thresholds["tokens"] == 200_000
    assert story.plan.training.replay == 0.25
    assert "strong" in story.plan.rule
    assert story.drafted.training.replay == 0.05
    assert [stage.stage for stage in story.stages] == ["ingest", "probe", "train", "evaluate", "promote"]
    assert story.probe is not None
    assert story.probe.shift == 0.9
    assert story.judgement is not None
    assert story.judgement.inputs["forgetting.prose"] == 0.004
    assert story.promoted is not None
    assert story.promoted.model_version == 2
    assert story.ending.outcome == "promoted"


def test_a_rollback_is_offered_where_there_was_a_champion_before(trained: "Chronicle") -> None:
    """Behind the first version there is none, and the request would be answered as not possible."""
    assert trained.pipeline.previous is not None
    first, second = (told(trained, run) for run in (trained.pipeline.previous.run, champion(trained)))

    assert [any("rollback" in command for command, _ in following(each)) for each in (first, second)] == [False, True]


def test_a_wish_that_waited_says_how_long_and_for_what(chronicle: "Chronicle") -> None:
    """An arrival during a run starts the next one when that has ended."""
    chronicle.arrive("prose", 900_000, id="prose-1")
    chronicle.arrive("code", 600_000, id="code-2")
    first = chronicle.train()
    run = chronicle.pipeline.active
    assert run is not None

    story = told(chronicle, run.run)

    assert story.decision is not None
    assert story.decision.suppressed_by == f"run {first} is active"
    assert story.waited > 0
    assert story.ending.outcome == "active"


def test_who_asked_for_a_start_is_told(rewarm: "Command", chronicle: "Chronicle") -> None:
    """By whom, why and where it stands in the journal; of a run that data started nobody is named."""
    chronicle.arrive("prose", 900_000, id="prose-1")
    first = chronicle.train()
    chronicle.arrive("prose", 50_000, id="prose-2")
    asked = chronicle.tell(OperatorRequested(verb="train", by="ann", reason="the fair")).position
    run = chronicle.pipeline.active
    assert run is not None

    told = " ".join(rewarm("explain", run.run).out.split())

    assert f"It was decided on a request: train by ann: the fair (#{asked})." in told
    assert "on a request" not in rewarm("explain", first).out


def test_a_failed_run_says_why(chronicle: "Chronicle") -> None:
    """A stage that failed for good is in the story, with the decision to give up."""
    chronicle.arrive("prose", 900_000, id="prose-1")
    run = chronicle.pipeline.active
    assert run is not None
    chronicle.stage(failure="No such preset.")

    story = told(chronicle, run.run)

    assert story.ending.outcome == "failed"
    assert story.stages[0].attempts[0].outcome == "failed"
    assert "No such preset." in story.stages[0].attempts[0].message
    assert [decision.verdict for decision in story.recoveries] == ["given_up"]


def test_a_recovery_that_was_asked_for_is_told_from_report_to_retry(rewarm: "Command", chronicle: "Chronicle") -> None:
    """What was reported, what was done with the attempt, and what later reports did not change."""
    chronicle.arrive("prose", 900_000, id="prose-1")
    run = chronicle.pipeline.active
    assert run is not None
    assert run.order is not None
    chronicle.tell(
        StageStarted(run=run.run, stage="ingest", attempt=1, command=run.order.command, host="node-7", pid=4712)
    )
    lost = FailureReported(failure="worker_lost", run=run.run, host="node-7", evidence="no answer for 30 s")
    chronicle.tell(lost)
    chronicle.tell(lost)
    message = "It was reported as worker_lost, and its process is gone."
    chronicle.tell(StageInterrupted(run=run.run, stage="ingest", attempt=1, reason="died", message=message))
    chronicle.train()
    chronicle.tell(lost)

    out = " ".join(rewarm("explain", run.run).out.split())

    sentences = [
        f"ingest interrupted after 3.0 s: died {message}",
        "ending: worker_lost was reported (no answer for 30 s): attempt 1 of stage ingest is ended",
        "failure_known: Attempt 1 of stage ingest is being ended already",
        "retry: Stage ingest is tried again, from its start (attempt 2, after worker_lost).",
        f"failure_of_ended_run: Run {run.run} has ended already (promoted).",
    ]
    assert [sentence for sentence in sentences if sentence not in out] == []
    places = [out.index(sentence) for sentence in sentences]
    assert places == sorted(places)


def test_a_rejected_candidate_is_judged_by_its_numbers(rewarm: "Command", chronicle: "Chronicle") -> None:
    """Forgetting beyond the bound rejects; the story says by how much, and what can be done with the data."""
    chronicle.arrive("prose", 900_000, id="prose-1")
    chronicle.train()
    chronicle.arrive("code", 600_000, id="code-2")
    run = chronicle.train({"prose": 0.5, "code": -0.8}, shift=0.9)

    out = rewarm("explain", run).out

    assert "an increment that was rejected" in out
    assert "prose is forgotten by 0.5000 nats per byte (at most 0.02)" in out
    assert f"rewarm request accept docs-lm --run {run}" in out
    assert f"rewarm request withdraw docs-lm --run {run}" in out
    present = " ".join(rewarm("explain", "docs-lm").out.split())
    assert "set aside code 599,000 tokens, which no run takes by itself" in present


def test_the_page_reads_from_cause_to_effect(rewarm: "Command", trained: "Chronicle") -> None:
    """The sections follow one another, with the numbers that were compared."""
    out = rewarm("explain", champion(trained)).out

    titles = ["What arrived", "Why it started", "The plan", "What happened", "What it brought", "The judgement"]
    places = [out.index(title) for title in [*titles, "Where it lies", "What you can do next"]]
    assert places == sorted(places)
    assert "tokens 600,000 (at least 200,000)" in out
    assert "25% of every batch is old data: a shift of 0.900 is strong" in out
    assert "-0.8000 [-0.8100, -0.7900]" in out
    assert "forgetting of prose 0.0040 (at most 0.0200)" in out
    assert "█" in out


def test_a_story_says_from_where_in_a_topic_it_came(rewarm: "Command", chronicle: "Chronicle") -> None:
    """Where the arrival lay, and the trace of the fact that led to the start."""
    chronicle.arrive("prose", 100, id="a", carrier=Carrier(topic="rewarm.events", partition=0, offset=4))
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    carrier = Carrier(topic="rewarm.events", partition=1, offset=17, traceparent=trace)
    chronicle.arrive("prose", 600_000, id="b", carrier=carrier)
    run = chronicle.train()
    out = " ".join(rewarm("explain", run).out.split())

    assert "told by /crawler as a in rewarm.events/0@4, recorded" in out
    assert "told by /crawler as b in rewarm.events/1@17, recorded" in out
    assert f"belongs to the trace {trace}" in out
    story = json.loads(rewarm("explain", run, "--json").out)
    assert [(each["place"], each["traceparent"]) for each in story["arrivals"]] == [
        ("rewarm.events/0@4", ""),
        ("rewarm.events/1@17", trace),
    ]
    assert story["traceparent"] == trace


def test_a_story_as_json(rewarm: "Command", trained: "Chronicle") -> None:
    """--json is the same story for a program."""
    story = json.loads(rewarm("explain", champion(trained), "--json").out)

    assert story["ending"]["outcome"] == "promoted"
    assert story["plan"]["start"]["version"] == 1


def test_an_unknown_run_brings_the_known_ones(rewarm: "Command", trained: "Chronicle") -> None:
    """A run that does not exist is answered by those that do."""
    code, _, err = rewarm("explain", "docs-lm-999")

    assert code == 2
    assert champion(trained) in err


def test_no_run_is_told_as_such(chronicle: "Chronicle") -> None:
    """In a journal without runs the answer says so."""
    with pytest.raises(RewarmError, match="none yet"):
        told(chronicle, "docs-lm-1")


def test_why_did_it_not_train(chronicle: "Chronicle", rewarm: "Command") -> None:
    """Too little data: the policy's opinion with today's numbers says how much is missing."""
    chronicle.arrive("prose", 50_000, id="prose-1")

    out = rewarm("explain", "docs-lm").out

    assert "waiting: 50,000 of 200,000 new tokens wait." in out
    assert "tokens 50,000 (at least 200,000)" in out
    assert "prose 50,000 tokens" in out


def test_a_pause_is_the_answer(chronicle: "Chronicle", configuration: "Configuration") -> None:
    """A paused pipeline shows its wish, what it waits for, and the decision that was suppressed."""
    chronicle.tell(OperatorRequested(verb="pause", by="ann"))
    chronicle.arrive("prose", 900_000, id="prose-1")

    with open_reader(configuration.journal) as reader:
        seen = look(configuration, reader, chronicle.state, "docs-lm", chronicle.now)

    assert seen.paused == "ann"
    assert [(wish.policy, wish.waits_for) for wish in seen.wishes] == [("rewarm_replay", "the pause by ann")]
    assert seen.decisions[0].suppressed_by == "paused by ann"
    opinion = next(each for each in seen.opinions if each.policy == "rewarm_replay")
    assert opinion.due
    assert opinion.obstacle == "the pause by ann"


def test_plan_drafts_what_would_start(configuration: "Configuration", chronicle: "Chronicle") -> None:
    """What is due now comes with the run that it would start; nothing is stored."""
    chronicle.tell(OperatorRequested(verb="pause", by="ann"))
    chronicle.arrive("prose", 900_000, id="prose-1")
    before = chronicle.state.position

    outlook = foresee(configuration, chronicle.state, chronicle.now + timedelta(hours=1))

    (due,) = [opinion for opinion in outlook.pipelines["docs-lm"] if opinion.due]
    assert due.plan is not None
    assert due.plan.training.tokens == 900_000
    assert outlook.active == ()
    with open_reader(configuration.journal) as reader:
        assert reader.head() == before


def test_plan_works_before_the_first_daemon(rewarm: "Command", configuration: "Configuration") -> None:
    """Without a journal the configured policies are asked about an empty pipeline."""
    assert "Nothing would start." in rewarm("plan").out
    outlook = foresee(configuration, State(), NOON)
    assert [opinion.verdict for opinion in outlook.pipelines["docs-lm"]] == ["waiting", None, None, None]


def test_plan_refuses_an_unknown_pipeline(rewarm: "Command") -> None:
    """A pipeline that is not configured is answered by those that are."""
    assert rewarm("plan", "other").code == 2


def test_plan_as_json(rewarm: "Command", chronicle: "Chronicle") -> None:
    """--json holds slots, active runs and an opinion per policy."""
    chronicle.arrive("prose", 900_000, id="prose-1")

    outlook = json.loads(rewarm("plan", "--json").out)

    assert outlook["slots"] == 1
    assert chronicle.pipeline.active is not None
    assert outlook["active"] == [chronicle.pipeline.active.run]
    assert next(iter(outlook["pipelines"]["docs-lm"]))["policy"] == "rewarm_replay"


def test_a_sparkline_rises_and_falls() -> None:
    """The learning rate of a re-warmed run goes up to its peak and down to its floor."""
    schedule = Schedule(kind="rewarm", peak=3e-3, floor=3e-4, plateau=1e-3, warmup=0.2)

    training = Training(tokens=100, batch=1, context=1, replay=0.0, schedule=schedule, optimiser="keep", seed=0)

    bars = sparkline(training, width=20)

    assert len(bars) == 20
    assert bars[0] == "▁"
    assert "█" in bars[2:6]
    assert bars[-1] == "▂"


def test_numbers_stand_beside_their_bounds() -> None:
    """What a policy compared is told with the bound that it was held against."""
    inputs: Numbers = {
        "gain": 0.1,
        "forgetting.a": -0.01,
        "loss.a": 1.0,
        "shift": 0.5,
        "tokens": 5,
        "left": None,
        "look_tokens": 2,
        "look_drift.ks": 0.2,
    }
    thresholds: Numbers = {
        "min_gain": 0.0,
        "max_forgetting": 0.02,
        "weak_shift": 0.02,
        "strong_shift": 0.7,
        "tokens": 10,
        "look_tokens": 3,
    }

    assert list(compared(inputs, thresholds)) == [
        "gain 0.1000 (at least 0.0000)",
        "forgetting of a -0.0100 (at most 0.0200)",
        "shift 0.5000 (weak below 0.0200, strong from 0.7000)",
        "tokens 5 (at least 10)",
        "tokens, to look 2 (at least 3)",
        "drift.ks, to look 0.2000",
    ]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (ModelSettings(preset="small"), "random weights (llama small)"),
        (ModelSettings(kind="hf", path="models/ours"), "the weights in models/ours"),
        (ModelSettings(kind="module", factory="clicks:make"), "the weights that clicks:make makes"),
    ],
)
def test_a_training_from_scratch_says_where_its_weights_are_from(
    trained: "Chronicle", model: ModelSettings, words: str
) -> None:
    """Only the built-in decoder begins with random weights of a preset."""
    plan = told(trained, champion(trained)).plan
    scratch = replace(plan, model=model, start=replace(plan.start, kind="scratch"))
    rows = dict(plan_rows(scratch, None))
    assert (rows["starts at"], rows["optimiser"]) == (words, "new")


def test_what_was_expected_stands_beside_what_came(trained: "Chronicle") -> None:
    """The plan's row tells the law's losses and its error, and the evaluation how far they were off."""
    story = told(trained, champion(trained))
    law = Law(runs=4, error=0.0123)
    prediction = Prediction(old=1.25, new=2.5, law=law, forgetting=0.01, gain=0.75)
    plan = replace(story.plan, prediction=prediction)

    rows = dict(plan_rows(plan, None))
    assert rows["expected"] == (
        "old domains 1.250 (+0.010), new ones 2.500 (-0.750) nats per byte, by the law of 4 runs, error 0.012"
    )
    assert list(surprises(plan, story.evaluation)) == [
        "  old domains: expected +0.0100, came +0.0040, off by 0.0060",
        "  new domains: expected -0.7500, came -0.8000, off by 0.0500",
    ]
    young = replace(prediction, old=None, forgetting=None, law=Law(runs=1, error=None))
    words = dict(plan_rows(replace(plan, prediction=young), None))["expected"]
    assert words == "new ones 2.500 (-0.750) nats per byte, by the law of 1 run, too few to tell its error"
    assert "expected" not in dict(plan_rows(story.plan, None))
    assert not list(surprises(story.plan, story.evaluation))
