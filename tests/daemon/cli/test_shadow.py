"""Policies in shadow, and what keeps others from starting, as the command line tells them."""

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace
from rich.console import Console

from daemon.cli.explain.present import why
from daemon.cli.explain.render import sentence
from daemon.cli.explain.why import look
from daemon.cli.shadow import InShadow, would_have
from daemon.config import load
from daemon.core.events import OperatorRequested
from daemon.journal.sqlite import open_reader
from daemon.story import Decided

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.daemon.cli.conftest import Chronicle, Command

    Begin = Callable[[str], Chronicle]

STARTER = "{kind: rewarm_replay, after_tokens: 200_000}"
FIRST = f"{{mode: shadow, policies: [{STARTER}, {{kind: stage_recovery}}, {{kind: promotion}}]}}"


def present(chronicle: "Chronicle") -> str:
    """Return the pipeline's present as it was told when the last fact came."""
    with open_reader(chronicle.configuration.journal) as reader:
        seen = look(chronicle.configuration, reader, chronicle.state, "docs-lm", chronicle.now)
    console = Console(width=200, record=True, file=io.StringIO())
    for part in why(seen):
        console.print(part)
    return console.export_text()


def test_a_pipeline_in_shadow_tells_how_often_it_would_have_trained(chronicle_of: "Begin", rewarm: "Command") -> None:
    """Status, explain, plan and events: what would have started, when, and that nothing did."""
    chronicle = chronicle_of(FIRST)
    for number in range(5):
        chronicle.arrive("prose", 150_000, id=f"prose-{number}")
    assert chronicle.pipeline.active is None

    status = rewarm("status").out
    assert "rewarm_replay would have started 2 runs, the last at 2026-03-01 12:00:06Z" in status
    assert "promotion has said nothing yet" in status
    told = " ".join(rewarm("explain", "docs-lm").out.split())
    assert "waiting: 150,000 of 200,000 new tokens wait." in told
    assert "in shadow: would have started 2 runs, the last at 2026-03-01 12:00:06Z" in told
    assert "of what it took 600,000 tokens are pending" in told
    assert "What would have been started last, in shadow" in told
    assert told.count("a base training is due. [in shadow]") == 2
    assert "prose 750,000 tokens" in told
    events = rewarm("events", "--kind", "decision.made").out
    assert events.count("[in shadow]") == 5
    assert "[not now: shadow]" not in events


def test_the_present_as_json_names_the_shadows(chronicle_of: "Begin", rewarm: "Command") -> None:
    """--json carries the same: starts, the last, and each start that was not."""
    chronicle = chronicle_of(FIRST)
    chronicle.arrive("prose", 300_000, id="prose-1")

    seen = json.loads(rewarm("explain", "docs-lm", "--json").out)
    assert [each["shadow"]["starts"] for each in seen["opinions"]] == [1, 0, 0]
    assert [each["verdict"] for each in seen["shadows"]] == ["due"]
    assert json.loads(rewarm("status", "--json").out)["pipelines"]["docs-lm"]["shadows"]["rewarm_replay"]["starts"] == 1


def test_a_gate_in_shadow_is_told_with_the_run(chronicle_of: "Begin", rewarm: "Command") -> None:
    """The run's story has the acting judgement as its own, and the other's beside it."""
    strict = "{kind: promotion, name: strict, max_forgetting: 0.0001, mode: shadow}"
    chronicle = chronicle_of(
        f"{{policies: [{{kind: rewarm_replay, after_tokens: 100}}, {strict}, {{kind: promotion}}]}}"
    )
    chronicle.arrive("prose", 900_000, id="prose-1")
    chronicle.train()
    chronicle.arrive("code", 600_000, id="code-2")
    run = chronicle.train({"prose": 0.011, "code": -0.8}, shift=0.9)

    told = rewarm("explain", run).out
    judged, _, beside = told.partition("What policies in shadow said")
    assert "promote: The candidate keeps every bound." in judged
    assert "[in shadow]" not in judged
    assert "reject: " in beside
    assert chronicle.pipeline.versions == 2


def test_a_guard_is_the_answer(chronicle_of: "Begin") -> None:
    """What is due and kept back says by what, with the numbers, and when it is asked again."""
    chronicle = chronicle_of(
        "{policies: [{kind: rewarm_replay, after_tokens: 100, guards: {cooldown: P1D}}, {kind: promotion}]}"
    )
    chronicle.arrive("prose", 900_000, id="prose-1")
    chronicle.train()
    chronicle.arrive("prose", 900_000, id="prose-2")

    told = present(chronicle)
    assert "cooling_down: " in told
    assert "time since its last start " in told
    assert "(at least 1 day)" in told
    assert "asks again at 2026-03-02 12:00:03Z (guard)" in told
    assert "tokens 900,000 (at least 100)" in told
    assert "computed    9.0 s today" in told


def test_a_freeze_is_told(chronicle_of: "Begin", rewarm: "Command") -> None:
    """A frozen pipeline says by whom, and what ends it."""
    chronicle = chronicle_of(FIRST)
    chronicle.tell(OperatorRequested(verb="freeze", by="ann", reason="release week"))

    assert "by ann: release week: nothing is promoted; `rewarm request thaw docs-lm` ends it" in " ".join(
        rewarm("explain", "docs-lm").out.split()
    )


def test_what_would_have_had_no_effect_says_so() -> None:
    """A start in shadow for which nothing was pending is not told as one that would have been."""
    told = Decided(
        position=7,
        recorded_at=datetime(2026, 3, 1, tzinfo=UTC),
        policy="ours",
        version=1,
        verdict="due",
        reason="It drifts.",
        inputs={},
        thresholds={},
        suppressed_by="void: nothing is pending",
        shadow=True,
    )
    assert sentence(told) == "due: It drifts. [in shadow, void: nothing is pending] (#7)"
    assert sentence(replace(told, suppressed_by="shadow")) == "due: It drifts. [in shadow] (#7)"
    assert sentence(replace(told, shadow=False)) == "due: It drifts. [not now: void: nothing is pending] (#7)"


def test_the_example_of_a_first_pipeline_is_in_shadow() -> None:
    """Nothing of it acts until somebody deletes the one line that says so."""
    configuration = load(Path(__file__).parents[3] / "docs" / "examples" / "first" / "rewarm.yaml")
    (pipeline,) = configuration.settings.pipelines.values()
    assert len(pipeline.policies) == 3
    assert all(policy.shadow for policy in pipeline.policies)


def test_in_words() -> None:
    """Looks and starts are counted apart; of who would have started nothing is told what it said last."""
    assert would_have(InShadow()) == "has said nothing yet"
    assert would_have(InShadow(verdict="promote", position=7)) == "last said promote (#7)"
    assert would_have(InShadow(starts=1, looks=2)).startswith("would have started 1 run and looked 2 times, the last")
