"""The histories that golden journals tell: between them every verdict of every shipped policy, and of the core."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

from daemon.core.arrivals import amount_of
from daemon.core.events import (
    DaemonStopped,
    DataArrived,
    DataWithdrawn,
    DriftDetected,
    EvaluationReported,
    InputRejected,
    LabelArrived,
    ModelRejected,
    SourceDegraded,
    SourceRecovered,
    StageSucceeded,
)
from daemon.core.plans import Amount, Span
from tests.golden.deciding import guards, looks, plateau
from tests.golden.failures import recovery, remedies, reports
from tests.golden.gate import frozen, vetoes, watched
from tests.golden.planning import planner
from tests.golden.shadows import shadows
from tests.golden.tape import Tape
from tests.golden.topics import topics

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
HEAL = "{kind: stage_recovery}"
JUDGE = "{kind: promotion}"
GROW = "{kind: rewarm_replay, after_tokens: 100}"


def one(*policies: str, slots: int = 1, rest: str = "") -> str:
    """Return a configuration of one pipeline `p`."""
    return f"executor: {{slots: {slots}}}\npipelines: {{p: {{policies: [{', '.join(policies)}]{rest}}}}}\n"


def increments() -> Tape:
    """A base training, then increments under every shift; age; data that failed blocks until it is retried."""
    grow = "{kind: rewarm_replay, after_tokens: 100, max_age: PT6H, schedule: infinite}"
    tape = Tape(one(grow, HEAL, JUDGE))
    tape.arrive(60)
    tape.arrive(60, "manuals")
    tape.finish()
    for shift in (0.001, 0.3, 0.9, None):
        tape.arrive(150)
        tape.until("train", shift=shift)
        tape.finish()
    tape.arrive(10)
    tape.wait(7 * HOUR)
    tape.finish()
    refused = tape.arrive(120)
    tape.arrive(30, "letters")
    tape.succeed(rejects=[refused])
    tape.finish()
    tape.arrive(130)
    tape.begin()
    tape.fail("user_error")
    tape.tell(DriftDetected(metric="psi", value=0.2))
    tape.request("resume")
    tape.request("retry")
    tape.finish()
    gone = tape.arrive(90)
    withdraw(tape, gone)
    tape.arrive(20)
    return tape


def withdraw(tape: Tape, position: int) -> None:
    """Let the producer take an arrival back."""
    record = tape.records[position - 1]
    assert isinstance(record.event, DataArrived)
    tape.tell(
        DataWithdrawn(
            arrival_source=record.source,
            arrival_id=record.id,
            arrival=position,
            domain=record.event.domain,
            amount=amount_of(record.event),
            reason="a licence ended",
        )
    )


def fixed_share() -> Tape:
    """A share of replay that is configured, a budget, and a retrain whose plan the probe fixes too."""
    grow = "{kind: rewarm_replay, after_tokens: 50, replay: 0.1, training: {epochs: 2, max_tokens: 300}}"
    tape = Tape(one(grow, "{kind: periodic_retraining, from: scratch}", JUDGE))
    tape.arrive(60)
    tape.finish()
    tape.arrive(400)
    tape.finish()
    tape.request("retrain", reason="a new tokenizer")
    tape.finish()
    return tape


def retraining() -> Tape:
    """Retrains by count, by age and on request; one that is refused; one that is running; one that is blocked."""
    retrain = "{kind: periodic_retraining, after_increments: 2, every: P3D}"
    tape = Tape(one(GROW, retrain, HEAL, "{kind: promotion, max_forgetting: 0.05}"))
    tape.request("retrain")
    tape.arrive(120)
    tape.finish()
    for _ in range(2):
        tape.arrive(120)
        tape.finish()
    tape.arrive(10)
    tape.until("evaluate")
    tape.arrive(10)
    tape.finish(differences={"prose": (0.2, 0.1, 0.3)})
    tape.arrive(10)
    tape.wait(4 * DAY)
    tape.finish()
    tape.wait(4 * DAY)
    tape.begin()
    tape.fail("user_error")
    tape.wait(4 * DAY)
    tape.arrive(5)
    tape.wait(4 * DAY)
    tape.finish()
    tape.request("retrain", reason="because")
    tape.request("retrain", reason="again")
    tape.finish()
    tape.wait(HOUR)
    return tape


def calendar() -> Tape:
    """Ticks of a calendar: without a model, over a night without a daemon, while a run is active, after a failure."""
    retrain = '{kind: periodic_retraining, cron: "30 2 * * *", timezone: Europe/Berlin}'
    tape = Tape(one(GROW, retrain, HEAL, JUDGE), datetime(2026, 3, 27, 20, tzinfo=UTC))
    tape.wait(DAY)
    tape.arrive(120)
    tape.finish()
    tape.wait(DAY)  # into 29 March, when 02:30 does not exist
    tape.finish()
    tape.arrive(120)
    tape.wait(DAY)
    tape.finish()
    tape.finish()
    tape.sleep(3 * DAY)
    tape.start(one(GROW, retrain, HEAL, JUDGE))
    tape.finish()
    tape.arrive(120)
    tape.begin()
    tape.fail("user_error")
    tape.wait(DAY)
    every = '{kind: periodic_retraining, cron: "0 * * * mon-fri", catch_up: all}'
    tape.start(one(GROW, every, HEAL, JUDGE))
    tape.sleep(timedelta(hours=3))
    tape.catch_up()
    return tape


def judgement() -> Tape:
    """Candidates promoted, refused, held, approved, forced; set aside and accepted; rolled back."""
    tape = Tape(one(GROW, HEAL, "{kind: promotion, approval: undecided, max_forgetting: 0.02, min_gain: 0.01}"))
    tape.arrive(120)
    tape.finish()
    for differences in (
        {"prose": (0.3, 0.2, 0.4)},  # forgotten for sure
        {"prose": (0.015, -0.01, 0.03), "news": (-0.2, -0.3, -0.1)},  # may be forgotten
        {"prose": (-0.005, -0.02, 0.01), "news": (-0.005, -0.02, 0.01)},  # may gain nothing
        {"prose": (0.0, -0.001, 0.001), "news": (0.1, 0.05, 0.2)},  # no gain for sure
        {},  # nothing was measured
    ):
        tape.arrive(120, "news" if "news" in differences else "prose")
        tape.finish(differences=differences)
        if tape.of().held is not None:
            tape.request("approve", reason="looks well")
            if tape.of().active is not None:
                tape.finish()
    rejected = next(r.event for r in tape.records if isinstance(r.event, ModelRejected))
    tape.request("accept", run=rejected.run, spans=rejected.spans, amounts=rejected.amounts)
    tape.finish()
    again = [r.event for r in tape.records if isinstance(r.event, ModelRejected)][1]
    tape.request("withdraw", run=again.run, spans=again.spans, amounts=again.amounts)
    tape.request("rollback", reason="customers complain")
    tape.request("rollback")
    tape.start(one(GROW, HEAL, "{kind: promotion, approval: always}"))
    tape.arrive(120)
    tape.finish()
    tape.request("promote", reason="now")
    tape.finish()
    tape.arrive(120)
    tape.finish()
    tape.request("cancel")
    tape.request("cancel")
    tape.request("approve")
    tape.arrive(120)
    tape.until("train")
    tape.request("rollback", reason="the champion changes under the run")
    tape.begin()
    tape.interrupt("cancel")
    tape.until("train")
    return tape


def gates() -> Tape:
    """What happens with no policy that judges, recovers or retrains, and with a champion that changes under a run."""
    tape = Tape(one(GROW))
    tape.arrive(120)
    tape.finish()
    tape.request("promote")
    tape.finish()
    tape.arrive(120)
    tape.finish()
    tape.arrive(120)
    tape.until("train")
    tape.request("approve")
    tape.rest()
    tape.arrive(120)
    tape.begin()
    tape.fail("transient")
    tape.request("retrain")
    tape.request("pause", reason="maintenance")
    tape.arrive(120)
    tape.request("resume")
    tape.until("train")
    tape.request("cancel")
    tape.interrupt("cancel")
    tape.rest()
    return tape


def slots() -> Tape:
    """Three pipelines and one slot: waiting, passing over, preempting, expiring, pausing, disappearing."""
    retrain = "{kind: periodic_retraining, after_increments: 1, priority: 5}"
    grow = "{kind: rewarm_replay, after_tokens: 100, expires_after: PT2H}"
    inside = f"{{policies: [{grow}, {retrain}, {HEAL}, {JUDGE}]}}"
    urgent = f"{{priority: 9, policies: [{grow}, {JUDGE}]}}"
    both = f"executor: {{slots: 1}}\npipelines: {{p: {inside}, q: {urgent}, r: {inside}}}\n"
    tape = Tape(both)
    tape.arrive(120)
    tape.arrive(120, pipeline="r")
    tape.arrive(120, pipeline="q")
    tape.finish("p")
    tape.finish("q")
    tape.finish("r")
    tape.arrive(150)
    tape.until("train")
    tape.request("retrain", reason="urgent")
    tape.checkpoint(50)
    tape.interrupt("preempt")
    tape.finish()
    tape.rest()
    tape.arrive(120, pipeline="r")
    tape.request("pause", "q")
    tape.arrive(120, pipeline="q")
    tape.wait(3 * HOUR)
    tape.request("resume", "q")
    tape.arrive(120, pipeline="q")
    tape.start(f"executor: {{slots: 2}}\npipelines: {{p: {inside}, q: {urgent}}}\n")
    tape.begin("r")
    tape.interrupt("cancel", "r")
    tape.rest()
    return tape


def letters() -> Tape:
    """Dead letters, retried and dropped; sources that come and go; a daemon that stops; outcomes that come too late."""
    tape = Tape(one(GROW, HEAL, JUDGE))
    first = tape.state.position + 1
    tape.tell(InputRejected(reason="malformed", message="no JSON", where="a.json:1"), None)
    tape.tell(InputRejected(reason="file_missing", message="not there", where="a.json:2"))
    tape.tell(InputRejected(reason="unknown_kind", message="data.dreamt", where="a.json:3"), None)
    tape.request("drop", None, dead_letter=first, reason="a test")
    tape.request("retry", "p", dead_letter=first + 1)
    mended = DataArrived(uri="file:///in/prose", domain="prose", tokens=20, bytes=20, documents=1)
    tape.tell(mended, source="/crawler", cause=tape.state.position)  # what the retry brought in
    tape.arrive(120)
    order, names = tape.order(), tape.names()
    tape.succeed()
    late = StageSucceeded(**names, seconds=9.0)
    tape.tell(late, source=f"/rewarm/runs/{order.run}/{order.stage}/{order.attempt}", identity="late")
    tape.tell(SourceDegraded(name="spool:in", reason="the share is gone"), None)
    tape.tell(SourceRecovered(name="spool:in"), None)
    tape.tell(EvaluationReported(metric="accuracy", value=0.9, model_version=1))
    tape.tell(LabelArrived(metric="accuracy", value=0.9))
    tape.tell(DaemonStopped(reason="asked to stop"), None)
    tape.start(one(GROW, HEAL, JUDGE))
    tape.finish()
    return tape


def adoption() -> Tape:
    """A model of somebody else's: refused, wished for, taken back, taken in with what it has seen, then continued."""
    tape = Tape(f"pipelines: {{p: {{policies: [{GROW}, {HEAL}, {JUDGE}]}}}}")
    position = tape.arrive(80)
    spans, amounts = (
        (Span(after=position - 1, upto=position),),
        {"prose": Amount(arrivals=1, documents=1, bytes=80, tokens=80)},
    )
    tape.request("adopt")
    tape.request("pause")
    tape.request("adopt", model="file:///models/theirs", spans=spans, amounts=amounts)
    tape.request("adopt", model="file:///models/other", trained_on="nothing")
    tape.request("cancel")
    tape.request("adopt", model="file:///models/theirs", spans=spans, amounts=amounts)
    tape.request("resume")
    tape.rest()
    tape.request("adopt", model="file:///models/theirs")
    tape.arrive(120)
    tape.rest()
    return tape


def drain() -> Tape:
    """A daemon that stops lets the stage save a checkpoint; the next one goes on from there."""
    tape = Tape(one(GROW, JUDGE))
    tape.arrive(120)
    tape.until("train")
    tape.begin()
    tape.checkpoint(70)
    tape.interrupt("drain")
    tape.tell(DaemonStopped(reason="asked to stop"), None)
    tape.sleep(HOUR)
    tape.start(one(GROW, JUDGE))
    tape.rest()
    return tape


SCENARIOS: Final[Mapping[str, Callable[[], Tape]]] = MappingProxyType(
    {
        "adoption": adoption,
        "calendar": calendar,
        "drain": drain,
        "fixed-share": fixed_share,
        "frozen": frozen,
        "gates": gates,
        "guards": guards,
        "increments": increments,
        "judgement": judgement,
        "letters": letters,
        "looks": looks,
        "planner": planner,
        "plateau": plateau,
        "recovery": recovery,
        "remedies": remedies,
        "reports": reports,
        "retraining": retraining,
        "shadows": shadows,
        "slots": slots,
        "topics": topics,
        "vetoes": vetoes,
        "watched": watched,
    }
)
