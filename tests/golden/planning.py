"""How a plan is fixed, as a golden journal."""

from daemon.core.plans import Law
from tests.golden.tape import Tape


def planner() -> Tape:
    """A law that knows too little, one that errs too much, and one that chooses; replay in phases and by loss."""
    grow = (
        "{kind: rewarm_replay, after_tokens: 100, schedule: wsd, replay_choice: loss_increase,"
        " replay_schedule: [{until: 0.2, factor: 2}, {until: 1.0, factor: 0.5}],"
        " training: {batch: 1, context: 1, falling_peak: true, anneal: {steps: 20}}}"
    )
    tape = Tape(f"pipelines: {{p: {{policies: [{grow}, {{kind: promotion}}]}}}}\n")
    tape.arrive(500)
    tape.finish()
    covered = dict.fromkeys(("excess", "shift", "forward", "replay", "tokens"), (0.0, 1000000000.0))
    for runs, error in ((2, None), (3, 0.05), (5, 0.011)):
        tape.arrive(150, "manuals")
        tape.until("train", law=Law(runs=runs, error=error, covered=covered))
        tape.finish()
    return tape
