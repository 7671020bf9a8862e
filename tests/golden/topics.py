"""A history of facts that come through Kafka."""

from msgspec.structs import replace

from daemon.broker.positions import cursor_name, source_of
from daemon.core.events import (
    AnyEvent,
    Carrier,
    DataArrived,
    DriftDetected,
    FailureReported,
    InputRejected,
    LabelArrived,
    Position,
    PositionSet,
    SourceDegraded,
    SourceRecovered,
)
from tests.golden.tape import Tape

HEAL = "{kind: stage_recovery}"
JUDGE = "{kind: promotion}"
GROW = "{kind: rewarm_replay, after_tokens: 100}"


def topics() -> Tape:
    """Facts out of Kafka: positions that are told, a topic made anew that a person aligns, another one that goes on."""
    tape = Tape(f"pipelines: {{p: {{policies: [{GROW}, {HEAL}, {JUDGE}]}}}}")
    events = Position(source="lake", cluster="c1", topic="events", topic_id="t1", partition=0, offset=0)
    metrics = replace(events, topic="metrics", topic_id="t2", offset=40)
    for at in (events, replace(events, partition=1), metrics):
        _placed(tape, PositionSet(position=at, before=None, why="first_seen"))
    _carried(tape, events, DataArrived(uri="file:///in/a", domain="prose", tokens=60, bytes=60, documents=1))
    _carried(tape, metrics, DriftDetected(metric="psi", value=0.2))
    _carried(tape, replace(events, offset=1), FailureReported(failure="worker_lost", host="golden", run="p-99"))
    bad = InputRejected(reason="not_mappable", message="no path", where="kafka:lake/events/0@2", source="/kafka/c1/t1")
    _carried(tape, replace(events, offset=2), bad, None)
    anew = replace(events, topic_id="t3", offset=5)
    tape.tell(SourceDegraded(name="kafka:lake/events", reason="The topic was made anew."), None)
    _carried(tape, replace(metrics, offset=41), LabelArrived(metric="accuracy", value=0.9))
    _placed(tape, PositionSet(position=replace(anew, partition=1), before=None, why="first_seen"))
    tape.request("align", None, positions=(anew, replace(events, topic_id="t3", offset=0)))
    for at, before in ((anew, None), (replace(anew, offset=0), 5)):
        _placed(tape, PositionSet(position=at, before=before, why="aligned", by="ann"), tape.state.position)
    tape.tell(SourceRecovered(name="kafka:lake/events"), None)
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    arrived = DataArrived(uri="file:///in/b", domain="prose", tokens=60, bytes=60, documents=1)
    _carried(tape, anew, arrived, traceparent=trace)
    tape.finish()
    return tape


def _placed(tape: Tape, event: PositionSet, cause: int | None = None) -> None:
    """Let a source tell from where it reads a partition."""
    name = cursor_name(event.position)
    tape.tell(event, None, source=source_of(event.position.source), identity=f"{event.why}:{name}", cause=cause)


def _carried(tape: Tape, at: Position, event: AnyEvent, pipeline: str | None = "p", traceparent: str = "") -> None:
    """Let a message come in from its place in a topic."""
    carrier = Carrier(
        source=at.source,
        topic=at.topic,
        partition=at.partition,
        offset=at.offset,
        timestamp=1_772_366_400_000,
        key=b"k",
        headers=(("content-type", b"application/cloudevents+json"),),
        traceparent=traceparent,
    )
    source = f"/kafka/{at.cluster}/{at.topic_id}"
    tape.tell(event, pipeline, source=source, identity=f"{at.partition}/{at.offset}", carrier=carrier)
