"""Signals: what the state keeps of what was measured, and no more than a policy needs."""

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from daemon.core.events import (
    AnyEvent,
    ConfigurationChanged,
    DriftDetected,
    EvaluationReported,
    LabelArrived,
    ProbeMeasured,
)

if TYPE_CHECKING:
    from tests.daemon.core.conftest import World


def want(world: "World", **signals: int) -> None:
    """Configure the world's pipeline anew, with policies that look at these signals."""
    settings = world.of().settings
    assert settings is not None
    wanted = {name.replace("_of_", "."): length for name, length in signals.items()}
    pipelines = {"p": replace(settings, signals=wanted)}
    world.fact(ConfigurationChanged(hash="signals", slots=1, pipelines=pipelines), None)


def values(world: "World", name: str) -> list[float]:
    """Return the values of a signal."""
    return [reading.value for reading in world.of().signals.get(name, ())]


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (EvaluationReported(metric="accuracy", value=0.9), "evaluation.accuracy"),
        (LabelArrived(metric="accuracy", value=0.9), "label.accuracy"),
        (DriftDetected(metric="psi", value=0.9), "detected.psi"),
    ],
)
def test_monitors_feed_signals(world: "World", event: AnyEvent, name: str) -> None:
    """What is reported is kept under the kind of the report and its metric, as often as asked for."""
    want(world, **{name.replace(".", "_of_"): 2})
    for _ in range(3):
        world.fact(event)

    assert values(world, name) == [0.9, 0.9]
    assert set(world.of().signals) == {name}


def test_what_nobody_looks_at_is_not_kept(world: "World") -> None:
    """Without a policy that needs it a report changes nothing but the position."""
    world.fact(EvaluationReported(metric="accuracy", value=0.9))

    assert world.of().signals == {}


def test_a_reading_names_the_champion(promoted: "World") -> None:
    """A report is of the version that it names, else of today's champion."""
    want(promoted, evaluation_of_accuracy=9)
    promoted.fact(EvaluationReported(metric="accuracy", value=0.9))
    promoted.fact(EvaluationReported(metric="accuracy", value=0.8, model_version=7))

    assert [reading.version for reading in promoted.of().signals["evaluation.accuracy"]] == [1, 7]


def test_probe_and_evaluation_feed_signals(promoted: "World") -> None:
    """Shift, distances and the expected gain come from the probe, gain and the worst forgetting from the evaluation."""
    want(promoted, shift=5, expected_gain=5, drift_of_ks=5, gain=5, forgetting=5)
    promoted.arrive(100, "code")
    promoted.until("probe")
    told = ProbeMeasured(**promoted.names(), new={}, past={}, shift=0.4, drift={"ks": 0.2}, expected_gain=0.03)
    promoted.fact(told)
    promoted.finish()

    found = {name: values(promoted, name) for name in promoted.of().signals}
    assert found == {
        "shift": [0.4],
        "expected_gain": [0.03],
        "drift.ks": [0.2],
        "gain": [0.1],
        "forgetting": [-0.1],
    }


def test_another_configuration_keeps_what_it_still_needs(world: "World") -> None:
    """A shorter series is cut to its last values, one that nobody needs any more is dropped, a longer one goes on."""
    want(world, evaluation_of_a=5, evaluation_of_b=5)
    for number in range(4):
        world.fact(EvaluationReported(metric="a", value=float(number)))
        world.fact(EvaluationReported(metric="b", value=float(number)))
    want(world, evaluation_of_a=2)

    assert values(world, "evaluation.a") == [2, 3]
    assert set(world.of().signals) == {"evaluation.a"}


def test_increments_add_to_what_is_forgotten(promoted: "World") -> None:
    """A champion carries what the increments since the last full training forgot, domain by domain."""
    for _ in range(2):
        promoted.arrive(100, "code")
        while promoted.order().stage != "evaluate":
            promoted.succeed()
        promoted.succeed(gain=-0.05)
        promoted.finish()

    champion = promoted.of().champion
    assert champion is not None
    assert champion.forgotten == {"prose": pytest.approx(0.1), "code": pytest.approx(0.05)}
