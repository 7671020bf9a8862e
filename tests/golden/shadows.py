"""What golden journals tell of policies in shadow: beside others, and what becomes of it when they act."""

from datetime import timedelta

from tests.golden.tape import Tape

HEAL, JUDGE = "{kind: stage_recovery}", "{kind: promotion}"
EAGER = "{kind: rewarm_replay, name: eager, after_tokens: 50, max_age: PT2H, mode: %s}"
STRICT = "{kind: promotion, name: strict, max_forgetting: 0.0, min_gain: 0.5, mode: shadow}"
YEARLY = "{kind: periodic_retraining, every: P7D, mode: shadow}"
PATIENT = "{kind: stage_recovery, name: patient, backoff: PT1M, mode: shadow}"


def one(*policies: str, mode: str = "act") -> str:
    """Return a configuration of one pipeline `p`."""
    return f"pipelines: {{p: {{mode: {mode}, policies: [{', '.join(policies)}]}}}}\n"


def shadows() -> Tape:
    """A first pipeline in shadow; then its starter acts beside others that do not; then all act."""
    grow = "{kind: rewarm_replay, after_tokens: 100}"
    tape = Tape(one(grow, HEAL, JUDGE, mode="shadow"))
    for _ in range(5):
        tape.arrive(60)
    tape.request("retrain")
    tape.start(one(grow, HEAL, PATIENT, JUDGE, STRICT, YEARLY, EAGER % "shadow"))
    tape.until("train")
    tape.fail("transient")
    tape.wait(timedelta(minutes=2))
    tape.finish()
    tape.arrive(60)
    tape.wait(timedelta(hours=3))
    tape.arrive(10)
    tape.wait(timedelta(hours=3))
    tape.arrive(60)
    tape.finish()
    tape.wait(timedelta(days=8))
    tape.start(one(HEAL, JUDGE, EAGER % "act"))
    tape.arrive(60)
    tape.finish()
    return tape
