"""`make demo-kafka`: the main job, fed through topics of Apache Kafka on a broker of its own; it ends by itself.

Everything that rewarm keeps of it lies in var/demo-kafka afterwards; the broker and its data are gone.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import yaml
from confluent_kafka import KafkaError, Message, Producer
from msgspec.structs import replace

from daemon.broker.positions import cursor_of
from daemon.cli.align import view
from daemon.cli.cluster import look
from daemon.cli.delivery import Answer, CloudEvent, Delivered, await_answer, enveloped, find_answer
from daemon.cli.demo.corpus import Corpus, code, prose
from daemon.cli.demo.processes import record_the_rest, serving, start_over, state_now
from daemon.cli.demo.report import collect, render
from daemon.cli.demo.screen import Screen, choose
from daemon.cli.demo.steps import SOURCE, library
from daemon.cli.demo.watch import Watch
from daemon.cli.output import console, program, short, show, warn
from daemon.cli.session import reading
from daemon.config import Configuration, load
from daemon.core.errors import RewarmError
from daemon.core.events import DataArrived
from daemon.files import write_atomically
from tests.brokers.broker import Broker
from tests.brokers.cluster import Cluster
from tests.brokers.jars import NoBroker, jars

ROOT = Path(__file__).parents[2]
HOME = ROOT / "var" / "demo-kafka"
PIPELINE = "docs-lm"
GROUP = "rewarm-demo"
EVENTS, UPLOADS, TRANSITIONS = "rewarm.events", "uploads", "rewarm.transitions"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PROSE_BYTES, CODE_BYTES = 450_000, 450_000
SECONDS = 60.0
TOLD = ("run.started", "model.promoted", "run.succeeded")
SHOWN_HEADERS = (
    "rewarm.errors.reason",
    "__connect.errors.topic",
    "__connect.errors.partition",
    "__connect.errors.offset",
    "__connect.errors.exception.message",
)


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """Where a message lies."""

    topic: str
    partition: int
    offset: int


class Feed:
    """Produces to the demo's topics, and asks the journal what became of it."""

    def __init__(self, broker: Broker, configuration: Configuration) -> None:
        self._broker = broker
        self._configuration = configuration
        self._sight = look(configuration.kafka[0].access, [EVENTS, UPLOADS])

    @property
    def sources(self) -> set[str]:
        """Who tells of the demo's arrivals: ourselves, and the topic whose messages name nobody."""
        return {SOURCE, f"/kafka/{self._sight.cluster}/{self._sight.topics[UPLOADS].topic_id}"}

    def cloudevent(self, event: CloudEvent) -> tuple[Sent, Answer]:
        """Produce an event in structured mode by librdkafka: it is not our client, and needs to know nothing of us."""
        came: list[Sent] = []
        before = self._head()

        def confirmed(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                raise RewarmError(f"The broker did not take the message: {error}.")
            came.append(Sent(topic=EVENTS, partition=message.partition() or 0, offset=message.offset() or 0))

        producer = Producer({"bootstrap.servers": self._broker.address})
        headers: dict[str, str | bytes | None] = {
            "content-type": "application/cloudevents+json; charset=UTF-8",
            "traceparent": TRACE,
        }
        producer.produce(EVENTS, msgspec.json.encode(event), event.subject, headers=headers, on_delivery=confirmed)
        producer.flush(SECONDS)
        if not came:
            raise RewarmError(f"The broker at {self._broker.address} did not answer in {SECONDS:.0f} s.")
        return came[0], self._answer(came[0], before, event.source, event.id)

    def plain(self, topic: str, value: bytes, identity: str = "") -> tuple[Sent, Answer]:
        """Produce a value without key and headers by kafka-python; `identity` is what a mapping finds in it."""
        before = self._head()
        (offset,) = self._broker.produce(topic, value, partition=0)
        sent = Sent(topic=topic, partition=0, offset=offset)
        source = f"/kafka/{self._sight.cluster}/{self._sight.topics[topic].topic_id}"
        return sent, self._answer(sent, before, source, identity)

    def _head(self) -> int:
        with reading(self._configuration) as reader:
            return reader.head()

    def _answer(self, sent: Sent, before: int, source: str, identity: str) -> Answer:
        """Wait until the journal has read the message, and return what became of it."""
        delivered = Delivered(
            id=identity,
            source=source,
            type="",
            way="kafka",
            cursor=cursor_of(self._sight.cluster, self._sight.topics[sent.topic].topic_id, sent.partition),
            offset=sent.offset,
            where=f"kafka:kafka/{sent.topic}/{sent.partition}@{sent.offset}",
            after=before,
        )
        with reading(self._configuration) as reader:
            answer = await_answer(lambda: find_answer(reader, delivered), SECONDS)
        if answer.outcome == "waiting":
            raise RewarmError(
                f"The daemon did not read {sent.topic}/{sent.partition}@{sent.offset} in {SECONDS:.0f} s."
            )
        return answer


def configure(address: str) -> Configuration:
    """Write the demo's configuration: rewarm.yaml with Kafka as its source. What an earlier demo left is removed."""
    settings = yaml.safe_load((ROOT / "rewarm.yaml").read_text(encoding="utf-8"))
    kafka = {
        "kind": "kafka",
        "bootstrap_servers": [address],
        "group_id": GROUP,
        "topics": [
            EVENTS,
            {
                "name": UPLOADS,
                "pipeline": PIPELINE,
                "mapping": {
                    "data": {"uri": "file.path", "domain": "file.kind", "bytes": "file.size"},
                    "id": "file.path",
                    "time": "uploaded_at",
                },
            },
        ],
        "transitions": {"topic": TRANSITIONS, "on": list(TOLD)},
    }
    settings |= {
        "journal": "sqlite:///journal.db",
        "mlflow": {"tracking_uri": "sqlite:///mlflow.db"},
        "state": ".",
        "http": {"port": 0},
        "roots": ["inbox"],
        "sources": [kafka],
        "executor": {"on_drain": "checkpoint"},  # who stops the demo leaves nothing at work
    }
    file = HOME / "rewarm.yaml"
    if file.exists():
        start_over(load(file))  # not while a daemon is at work there; stages that one left are ended
        shutil.rmtree(HOME)
    HOME.mkdir(parents=True)
    file.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return load(file)


def arrival(configuration: Configuration, made: Corpus, name: str) -> tuple[Path, DataArrived]:
    """Write a file of documents, and return it with the fact that it has arrived."""
    data = made.jsonl()
    path = configuration.roots[0] / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data)
    event = DataArrived(uri=path.name, domain=made.domain, bytes=len(data), documents=len(made.documents))
    return path, event


def story(broker: Cluster, configuration: Configuration, screen: Screen) -> tuple[tuple[str, ...], set[str]]:
    """Feed the daemon through Kafka until nothing more follows; returns what failed, and who told of arrivals."""
    with screen, serving(configuration) as daemon, reading(configuration) as reader:
        assert daemon is not None, "start_over let nobody else run here"
        screen.say(f"The daemon runs; its log is {short(daemon.log)}. Both end with this demo.", "dim")
        watch = Watch(reader, state_now(configuration), PIPELINE, configuration.state / "runs", screen)
        feed = Feed(broker, configuration)

        made = prose(library(), PROSE_BYTES)
        _, event = arrival(configuration, made, "stdlib-prose-1")
        screen.say(f"\nArrival 1 of 2: {made.domain} ({made.told})", "bold")
        envelope = enveloped(event, PIPELINE, now=datetime.now(UTC), identity="stdlib-prose-1", source=SOURCE)
        sent, answer = feed.cloudevent(envelope)
        screen.say(f"  a CloudEvent, produced by librdkafka: {became(sent, answer)}")
        sent, answer = feed.cloudevent(envelope)
        screen.say(f"  the same once more: {became(sent, answer)}")
        sent, answer = feed.plain(EVENTS, b'{"type": "data.arrived", "da')
        screen.say(f"  a message that is cut off: {became(sent, answer)}")
        watch.until_settled(daemon.check)

        made = code(library(), CODE_BYTES)
        path, event = arrival(configuration, made, "stdlib-code-2")
        screen.say(f"\nArrival 2 of 2: {made.domain} ({made.told})", "bold")
        upload = {
            "file": {"path": path.name, "kind": made.domain, "size": event.bytes},
            "uploaded_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        sent, answer = feed.plain(UPLOADS, msgspec.json.encode(upload), path.name)
        screen.say(f"  JSON of a producer who knows no CloudEvents, by a mapping: {became(sent, answer)}")
        watch.until_settled(daemon.check)

        screen.say("\nWhat Kafka has of it", "bold")
        aftermath(broker, configuration, watch, screen)
        screen.say("\nWhat rewarm status says", "bold")
        command = [sys.executable, "-m", "daemon", "--config", str(configuration.file), "status"]
        environment = {**os.environ, "COLUMNS": str(console().width - 2)}
        status = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        for line in status.stdout.splitlines():
            screen.say(f"  {line}".rstrip())
        return tuple(watch.failures), feed.sources


def became(sent: Sent, answer: Answer) -> str:
    """Return where a message lies, and what became of it."""
    outcomes = {
        "accepted": f"recorded at position {answer.position}",
        "duplicate": "a duplicate: it counts once",
        "dead_letter": f"a dead letter at position {answer.position} ({answer.reason})",
    }
    return f"{sent.topic}/{sent.partition}@{sent.offset}, {outcomes[answer.outcome]}"


def aftermath(broker: Broker, configuration: Configuration, watch: Watch, screen: Screen) -> None:
    """Show what others see in the cluster: transitions, the dead letter, and that nothing is left to be read."""
    watch.look()
    with reading(configuration) as reader:
        due = len(reader.records(0, 100_000, kinds=set(TOLD)))
        standing = view(configuration.kafka[0], watch.state, reader)
    for record in broker.read(TRANSITIONS, due):
        event = msgspec.json.decode(record.value)
        kind = event["type"].removeprefix("io.rewarm.").rpartition(".")[0]
        screen.say(f"  {TRANSITIONS}/{record.partition}@{record.offset}  {kind:14}  {event['data']['run']}")
    (letter,) = broker.read(f"{GROUP}.dlq", 1)
    headers = {name: value.decode() for name, value in letter.headers}
    screen.say(
        f"  {GROUP}.dlq/{letter.partition}@{letter.offset}  {letter.value.decode()!r}, as it came, and beside it"
    )
    for name in SHOWN_HEADERS:
        screen.say(f"    {name}: {headers[name]}", "dim")
    for topic in standing.topics:
        for each in topic.partitions:
            screen.say(f"  {topic.topic}/{each.partition}  read up to {each.position}, lag {each.lag}")


def run(folder: Path, screen: Screen) -> int:
    """Tell the story on a broker of its own; 1 when a run failed."""
    began = time.monotonic()
    screen.say(f"Starting a broker of Apache {jars().name.rpartition('-')[0].replace('-', ' ').title()} …", "dim")
    with Cluster(folder / "broker") as broker:
        for topic, partitions in ((EVENTS, 3), (UPLOADS, 1)):
            broker.create(topic, partitions)
        screen.say(f"It listens at {broker.address}; its topics are {EVENTS} (3 partitions) and {UPLOADS}.", "dim")
        configuration = configure(broker.address)
        screen.say("Starting the daemon …", "dim")
        failures, sources = story(broker, configuration, screen)
    record_the_rest(configuration)
    with reading(configuration) as reader:
        state = state_now(configuration)
        report = collect(
            configuration,
            reader,
            state,
            PIPELINE,
            seconds=time.monotonic() - began,
            news=True,
            failures=failures,
            sources=sources,
        )
    show("", *render(replace(report, following=following(report.runs[-1].run)), HOME, width=console().width))
    return 1 if failures else 0


def following(last: str) -> tuple[tuple[str, str], ...]:
    """Return what to type next."""
    name = f"{program()} --config {short(HOME / 'rewarm.yaml')}"
    return (
        (f"{name} explain {last}", "the chain of causes behind the last run"),
        (f"{name} dead-letters list", "what was refused, and why"),
        (f"{name} schema asyncapi", "topics and messages, described for other programs"),
        ("docs/how-to/kafka.md", "the same by hand, and with your own cluster"),
    )


def main() -> int:
    """Run the demo; whatever ends it, broker and daemon end with it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    screen = choose(console(), as_json=False)
    try:
        jars()
        with tempfile.TemporaryDirectory(prefix="rewarm-demo-") as folder:
            return run(Path(folder), screen)
    except (NoBroker, RewarmError) as error:
        warn(f"{error}".removesuffix(".") + ".")
        return 1
    except KeyboardInterrupt:
        screen.say("\nStopped: broker and daemon have ended.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
