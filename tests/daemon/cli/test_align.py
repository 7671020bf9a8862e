"""`rewarm align`: what it shows of a real cluster, and the request that it sends."""

import io
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from daemon.cli.delivery import Answer, CloudEvent
from daemon.cli.post import Target
from daemon.core.events import Position

if TYPE_CHECKING:
    from daemon.config import Configuration
    from tests.brokers.broker import Broker
    from tests.daemon.cli.conftest import Chronicle, Command, Result

Listen = Callable[..., "Configuration"]
NOBODY = "127.0.0.1:1"


class Stream:
    """A topic of two partitions, with three records in the first one, and a source that is configured to read it."""

    def __init__(self, broker: "Broker", listen: Listen, rewarm: "Command") -> None:
        self.broker = broker
        self.topic = broker.topic(partitions=2)
        broker.produce(self.topic, "a", "b", "c", partition=0, timestamp=1_000_000)
        self.configuration = listen(broker.address, self.topic)
        self._rewarm = rewarm
        with broker.admin() as admin:
            self.cluster = str(admin.describe_cluster()["cluster_id"])
            self.topic_id = str(admin.describe_topics([self.topic])[0]["topic_id"])

    def at(self, partition: int, offset: int, **changed: str) -> Position:
        """A position in the topic as it is."""
        names = {"cluster": self.cluster, "topic_id": self.topic_id, **changed}
        return Position(source="kafka", topic=self.topic, partition=partition, offset=offset, **names)

    def align(self, *wanted: str) -> "Result":
        """Run the command; `wanted` are settings of the topic, such as `/0=end`."""
        return self._rewarm("align", *(part for each in wanted for part in ("--set", self.topic + each)))

    def shown(self) -> tuple[int, dict[str, Any]]:
        """Return the exit code, and what is shown of the source."""
        code, out, _ = self._rewarm("align", "--json")
        (source,) = json.loads(out)["sources"]
        return code, source

    def asked(self) -> list[dict[str, Any]]:
        """Return the data of the requests in the spool."""
        files = sorted(self.configuration.spools[0].glob("*.json"))
        return [json.loads(path.read_bytes())["data"] for path in files]


@pytest.fixture
def stream(broker: "Broker", listen: Listen, rewarm: "Command") -> Stream:
    """A topic on a real broker."""
    return Stream(broker, listen, rewarm)


def test_every_partition_is_shown(stream: Stream, chronicle: "Chronicle") -> None:
    """The journal's position beside the partition's ends; what was not read yet is new."""
    chronicle.read(stream.at(0, 2))

    code, source = stream.shown()

    assert (code, source["cluster"], source["troubles"]) == (0, stream.cluster, {})
    first, second = source["topics"][0]["partitions"]
    assert first == {"partition": 0, "condition": "reading", "position": 2, "begin": 0, "end": 3, "lag": 1, "lost": 0}
    assert second == {
        "partition": 1,
        "condition": "waiting",
        "position": None,
        "begin": 0,
        "end": 0,
        "lag": 0,
        "lost": 0,
    }
    rows = [line.split() for line in stream.align().out.splitlines() if line.startswith(stream.topic)]
    assert rows[0][1:] == ["0", "2", "0", "3", "1", "reading"]
    assert rows[1][1:] == ["1", "–", "0", "0", "0", "new:", "not", "read", "yet"]


def test_a_topic_that_was_created_again_is_shown(stream: Stream, chronicle: "Chronicle") -> None:
    """With what to do, and exit code 1; once it is set from its beginning, it is the one that is read."""
    chronicle.read(stream.at(0, 2, topic_id="another"))
    chronicle.close()

    code, out, _ = stream.align()

    assert code == 1
    assert "created again" in out
    assert f"`rewarm align --set kafka/{stream.topic}=beginning`" in " ".join(out.split())
    assert stream.align("=beginning").code == 0
    (request,) = stream.asked()
    assert request["positions"] == [
        {"source": "kafka", "cluster": stream.cluster, "topic": stream.topic, "topic_id": stream.topic_id,
         "partition": partition, "offset": 0}
        for partition in (0, 1)
    ]  # fmt: skip


def test_a_missing_topic_is_shown(rewarm: "Command", broker: "Broker", listen: Listen) -> None:
    """There is nothing to stand in; it cannot be set either."""
    listen(broker.address, "not.there")

    code, out, _ = rewarm("align")
    refused = rewarm("align", "--set", "not.there=end")

    assert code == 1
    assert "There is no topic not.there" in out
    assert (refused.code, "There is no topic not.there" in refused.err) == (2, True)


def test_a_request_says_what_follows(stream: Stream, chronicle: "Chronicle") -> None:
    """Each change with what is read again and what is skipped; numbers are sent, and no daemon is needed."""
    chronicle.read(stream.at(0, 2))
    chronicle.close()

    code, out, _ = stream.align("/0=1970-01-01T00:16:40Z")

    assert code == 0
    assert "2 read again" in out
    assert "a request to set 1 position. No daemon is running" in out
    assert [(at["partition"], at["offset"]) for at in stream.asked()[0]["positions"]] == [(0, 0)]
    assert "1 skipped" in stream.align("/0=end").out
    assert "1 skipped" in stream.align("/0=1970-01-01T00:16:41Z").out, "no record is as new: the end"
    verbs = {(request["verb"], len(request)) for request in stream.asked()}
    assert verbs == {("align", 2)}, "without a reason there is none"


def test_what_stands_there_already_is_not_sent(stream: Stream, chronicle: "Chronicle") -> None:
    """Nothing to set is no fault."""
    chronicle.read(stream.at(0, 2))

    code, out, _ = stream.align("/0=2")

    assert (code, "nothing is set" in out) == (0, True)
    assert stream.asked() == []


def test_an_offset_outside_is_refused(stream: Stream) -> None:
    """Nothing is sent."""
    code, _, err = stream.align("/0=4")

    assert code == 2
    assert "has no offset 4: it can stand at 0 to 3" in err
    assert stream.asked() == []


@pytest.mark.parametrize(("said", "sent"), [("y\n", 1), ("YES\n", 1), ("\n", 0), ("no\n", 0), ("", 0)])
def test_a_person_at_a_terminal_is_asked(stream: Stream, monkeypatch: pytest.MonkeyPatch, said: str, sent: int) -> None:
    """Only yes is yes."""
    terminal = io.StringIO(said)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)

    result = stream.align("=end")

    assert "Set 2 positions? [y/N]" in result.err
    assert (result.code, len(stream.asked())) == (0 if sent else 2, sent)


def test_a_running_daemon_answers_at_once(
    stream: Stream, chronicle: "Chronicle", rewarm: "Command", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accepted with the position of the request; refused, its reason and exit code 1."""
    answers = [Answer(outcome="accepted", position=7)]
    sent: list[CloudEvent] = []

    def post(_: Target, event: CloudEvent) -> Answer:
        sent.append(event)
        return answers[0]

    monkeypatch.setattr("daemon.cli.emit.find_target", lambda *_: Target(url="http://here", token="t", given=True))
    monkeypatch.setattr("daemon.cli.emit.post", post)

    code, out, _ = stream.align("=end")
    assert code == 0
    assert "Accepted at position 7: 2 positions set" in out
    assert sent[0].subject is None

    answers[0] = Answer(outcome="dead_letter", position=8, reason="unknown_topic", message="No source.")
    told = rewarm("align", "--set", f"kafka/{stream.topic}/0=end", "--reason", "tests", "--json")
    assert told.code == 1
    result = json.loads(told.out)
    assert (result["answer"]["reason"], result["event"]["way"]) == ("unknown_topic", "http")
    assert [(each["after"], each["skipped"]) for each in result["changes"]] == [(3, 3)]
    assert json.loads(bytes(sent[1].data))["reason"] == "tests"


def test_a_cluster_that_does_not_answer_is_told(rewarm: "Command", listen: Listen) -> None:
    """In the list as what it is; nothing can be set there."""
    listen(NOBODY, "events")

    code, out, _ = rewarm("align")
    refused = rewarm("align", "--set", "events=end")

    assert code == 1
    assert f"kafka:kafka: The Kafka cluster at {NOBODY} cannot be used" in out
    assert refused.code == 2
    assert NOBODY in refused.err


def test_without_a_kafka_source_there_is_nothing_to_align(rewarm: "Command", configuration: "Configuration") -> None:
    """A sentence, and exit code 2."""
    code, _, err = rewarm("align")
    assert (code, "No Kafka source is configured" in err) == (2, True)
