"""What golden journals tell of failures: seen by a stage's own end, and reported from outside."""

from datetime import timedelta
from typing import Any, Final

from daemon.core.errors import FailureClass
from daemon.core.events import FailureReported
from daemon.core.plans import Document
from tests.golden.tape import Tape

MINUTE: Final = timedelta(minutes=1)
GROW: Final = "{kind: rewarm_replay, after_tokens: 100}"


def one(*policies: str) -> str:
    """Return a configuration of one pipeline `p`."""
    return f"pipelines: {{p: {{policies: [{', '.join((GROW, *policies))}]}}}}\n"


def recovery() -> Tape:
    """Failures of every class: tried again at once, later, from a checkpoint, from the start, or given up."""
    heal = "{kind: stage_recovery, retries: 3, ceiling: 5, backoff: PT4S, max_backoff: PT10S}"
    tape = Tape(one(heal, "{kind: promotion}"))
    tape.arrive(120)
    tape.begin()
    tape.tell(FailureReported(failure="worker_lost", host="node-7", evidence="no answer"))
    tape.fail("transient")
    tape.wait(MINUTE)
    tape.begin()
    tape.fail("transient")
    tape.tell(FailureReported(failure="transient"))
    tape.wait(MINUTE)
    tape.until("train")
    for reason in ("died", "hang"):
        tape.begin()
        tape.checkpoint(100 if reason == "died" else 200)
        tape.interrupt(reason)
        tape.wait(MINUTE)
    tape.begin()
    tape.fail("bad_checkpoint")
    tape.wait(MINUTE)
    tape.begin()
    tape.fail("out_of_memory")
    tape.start(one(heal, "{kind: promotion, min_gain: 0.001}"))
    tape.wait(MINUTE)
    tape.finish()
    tape.arrive(120)
    for _ in range(4):
        tape.begin()
        tape.fail("straggler")
        tape.wait(MINUTE)
    tape.arrive(120)
    tape.until("train")
    for step in range(1, 7):
        tape.begin()
        tape.checkpoint(step * 10)
        tape.fail("disk_full")
        tape.wait(MINUTE)
    tape.arrive(5)
    tape.begin()
    tape.fail("time_limit")
    return tape


def remedies() -> Tape:
    """Trainings that fail in ways of their own, and go on otherwise; a drain and a lost worker change no remedy."""
    heal = "{kind: stage_recovery, retries: 4, backoff: PT4S, jitter: 0, limits: {out_of_memory: 3}}"
    tape = Tape(one(heal, "{kind: promotion}"))

    def fails(failure: FailureClass, *, times: int = 2, **where: Any) -> None:  # noqa: ANN401 - its fields
        for _ in range(times):
            tape.begin()
            tape.fail(failure, **where)
            tape.wait(MINUTE)

    tape.arrive(5_000_000)
    tape.until("train")
    tape.begin()
    tape.checkpoint(100)
    tape.fail("out_of_memory")
    fails("not_finite", step=140, documents=[Document(arrival=2, number=7)])
    tape.begin()
    tape.interrupt("drain")
    tape.begin()
    tape.checkpoint(300)
    tape.interrupt("died")
    fails("loss_spike", step=350)
    tape.begin()
    tape.checkpoint(500)
    fails("bad_sample", times=1, step=501, documents=[Document(arrival=2, number=9)])
    tape.begin()
    tape.checkpoint(600)
    fails("bad_checkpoint", step=600)
    tape.finish()
    tape.arrive(5_000_000)
    tape.until("train")
    fails("out_of_memory", times=4)
    tape.arrive(5_000_000)
    tape.until("train")
    fails("bad_sample", step=3)
    tape.arrive(5)
    return tape


def reports() -> Tape:
    """Failures that are reported from outside: of what is at work, of what is not, too late, and too often."""
    tape = Tape(one("{kind: stage_recovery, retries: 1, backoff: PT4S}"))

    def lost(failure: FailureClass = "worker_lost", **told: Any) -> None:  # noqa: ANN401 - its fields
        tape.tell(FailureReported(failure=failure, evidence="no answer", **told))

    lost()
    lost(run="p-1")
    tape.arrive(120)
    lost()
    tape.until("train")
    run = tape.run().run
    tape.begin()
    tape.checkpoint(100)
    lost("preempted", host="golden")
    lost(host="node-7")
    for _ in range(3):
        lost(run=run, host="golden", worker="golden/1")
    tape.interrupt("died")
    tape.begin()
    lost(run=run)
    tape.wait(MINUTE)
    lost("hang", run=run)
    tape.checkpoint(200)
    lost("hang", run=run)
    tape.interrupt("died")
    lost(run=run)
    tape.begin()
    tape.checkpoint(300)
    tape.fail("transient")
    lost(run=run)
    tape.wait(MINUTE)
    tape.finish()
    lost(run=run)
    tape.arrive(120)
    run = tape.run().run
    tape.begin()
    tape.request("cancel")
    lost(run=run)
    tape.interrupt("cancel")
    lost(run=run)
    return tape
