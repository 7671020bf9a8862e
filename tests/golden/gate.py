"""What golden journals tell of the gate: vetoes, freezes, and champions that are watched."""

from datetime import timedelta
from typing import Final

from daemon.core.events import EvaluationReported
from tests.golden.tape import Tape

HOUR: Final = timedelta(hours=1)
GROW: Final = "{kind: rewarm_replay, after_tokens: 100}"
WATCH: Final = "watch: {signal: evaluation.accuracy, better: higher, for: P1D, tolerance: 0.01}"
FREEZE: Final = "freeze: [{from: 2026-03-02T00:00:00Z, until: 2026-03-03T00:00:00Z, reason: a fair}]"


def one(promotion: str) -> str:
    """Return a configuration of one pipeline `p`, whose gate has these fields."""
    return f"pipelines: {{p: {{policies: [{GROW}, {{kind: promotion, {promotion}}}]}}}}\n"


def report(tape: Tape, version: int, *values: float) -> None:
    """Report the live quality of a version."""
    for value in values:
        tape.tell(EvaluationReported(metric="accuracy", value=value, model_version=version))


def watched() -> Tape:
    """A champion that stays, one that goes again, and what was built on it; reports too late, and on others."""
    tape = Tape(one(WATCH))
    tape.arrive(120)
    tape.finish()
    report(tape, 1, 0.9, 0.91, 0.89)
    tape.arrive(120)
    tape.finish()
    report(tape, 2, 0.92, 0.9, 0.91)
    tape.wait(25 * HOUR)
    report(tape, 2, 0.1, 0.1, 0.1)
    tape.arrive(120)
    tape.finish()
    report(tape, 9, 0.0, 0.0, 0.0)
    tape.arrive(120)
    tape.until("train")
    report(tape, 3, 0.0, 0.0, 0.0)
    tape.rest()
    return tape


def frozen() -> Tape:
    """Candidates that keep every bound, held by a person's freeze and by a window; one that a person lets through."""
    tape = Tape(one(FREEZE))
    tape.arrive(120)
    tape.finish()
    tape.request("freeze", reason="an incident")
    tape.arrive(120)
    tape.finish()
    tape.request("thaw")
    tape.rest()
    tape.wait(12 * HOUR)
    tape.arrive(120)
    tape.finish()
    tape.wait(25 * HOUR)
    tape.rest()
    tape.request("freeze")
    tape.arrive(120)
    tape.finish()
    tape.request("approve", reason="it cannot wait")
    tape.rest()
    tape.request("thaw")
    return tape


def vetoes() -> Tape:
    """A protected domain: a doubt about it refuses, and so it does again once others are approved."""
    tape = Tape(one("protected: {prose: 0.0}, approval: undecided"))
    tape.arrive(120)
    tape.finish()
    for low, high in ((-0.2, 0.001), (-0.2, 0.0)):
        tape.arrive(120, "code")
        tape.finish(differences={"prose": (-0.1, low, high)})
    return tape
