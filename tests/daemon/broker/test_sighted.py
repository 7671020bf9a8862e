"""What is seen of a cluster while something happens to it: brokers go, leaders change, topics are created again."""

import asyncio
import uuid
from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from kafka.errors import KafkaConnectionError, NotLeaderForPartitionError
from kafka.protocol.consumer import ListOffsetsRequest

from daemon.broker.look import sighted
from daemon.broker.sight import Extent, Sight

if TYPE_CHECKING:
    from daemon.broker.connections import Client

OLD, NEW, GONE = uuid.UUID(int=1), uuid.UUID(int=2), uuid.UUID(int=3)
UNKNOWN_TOPIC = 3


class Scripted:
    """A client whose brokers say what a test wants: leaders by partition, topic ids one look after the other."""

    def __init__(self, leaders: Mapping[int, int], ids: tuple[uuid.UUID | None, ...] = (OLD, OLD)) -> None:
        self.cluster = SimpleNamespace(brokers=lambda: set(leaders.values()))
        self.leaders = leaders
        self.ids = list(ids)
        self.silent: set[int] = set()
        self.errors: dict[int, int] = {}

    def ask(self, request: Any, deadline: float, node_id: int | None = None) -> object:  # noqa: ANN401 - the library has no types
        """Return the answer, or the error."""
        if node_id in self.silent:
            return KafkaConnectionError()
        if isinstance(request, ListOffsetsRequest):
            return SimpleNamespace(
                topics=[
                    SimpleNamespace(name=topic.name, partitions=[self._offset(each) for each in topic.partitions])
                    for topic in request.topics
                ]
            )
        topic_id = self.ids.pop(0)
        topic = SimpleNamespace(
            name="t",
            topic_id=topic_id,
            error_code=UNKNOWN_TOPIC if topic_id is GONE else 0,
            partitions=[SimpleNamespace(partition_index=at, leader_id=by) for at, by in self.leaders.items()],
        )
        return SimpleNamespace(cluster_id="c", topics=[topic])

    async def within(self, answer: object, deadline: float) -> object:
        """Give the answer."""
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _offset(self, asked: Any) -> object:  # noqa: ANN401 - as above
        at = asked.partition_index
        offset = 10 * at + (0 if asked.timestamp == -2 else 5)
        return SimpleNamespace(partition_index=at, offset=offset, error_code=self.errors.get(at, 0))


def look(client: Scripted) -> Sight:
    """Return what is seen of topic t."""
    return asyncio.run(sighted(cast("Client", client), ["t"], 0.0))


def test_a_leader_that_does_not_answer_hides_its_own_partitions_alone() -> None:
    """The others are seen, and the trouble names the broker."""
    client = Scripted({0: 1, 1: 2})
    client.silent = {2}
    sight = look(client)
    assert sight.topics["t"].partitions == {0: Extent(begin=0, end=5)}
    assert sight.troubles == {"t": "Partition 1 of topic t is led by broker 2, which does not answer."}


def test_a_partition_without_a_leader_is_a_trouble() -> None:
    """Nobody is asked for it; the others are seen."""
    sight = look(Scripted({0: 1, 1: -1}))
    assert list(sight.topics["t"].partitions) == [0]
    assert "Partition 1 of topic t has no leader" in sight.troubles["t"]


def test_a_leader_that_has_changed_leaves_a_partition_out_for_now() -> None:
    """The next look will know the new one: there is nothing to tell anybody."""
    client = Scripted({0: 1, 1: 1})
    client.errors = {1: NotLeaderForPartitionError.errno}
    sight = look(client)
    assert list(sight.topics["t"].partitions) == [0]
    assert sight.troubles == {}


def test_extents_are_never_those_of_another_topic_of_the_same_name() -> None:
    """A topic that was created again while we looked is seen as the new one, without extents."""
    sight = look(Scripted({0: 1}, ids=(OLD, NEW)))
    assert sight.topics["t"].topic_id == str(NEW)
    assert sight.topics["t"].partitions == {}


def test_a_topic_that_was_deleted_while_we_looked_is_not_there() -> None:
    """It is absent, as one that never was."""
    sight = look(Scripted({0: 1}, ids=(OLD, GONE)))
    assert (sight.topics, sight.troubles) == ({}, {})


def test_a_broker_that_knows_no_topic_ids_is_looked_at_too() -> None:
    """The id is "" then."""
    topic = look(Scripted({0: 1}, ids=(None, None))).topics["t"]
    assert (topic.topic_id, topic.partitions) == ("", {0: Extent(begin=0, end=5)})


def test_nobody_who_answers_is_an_error() -> None:
    """Each broker was asked, and one of them twice."""
    client = Scripted({0: 1, 1: 2})
    client.silent = {None}  # type: ignore[arg-type] # whoever is asked
    with pytest.raises(KafkaConnectionError):
        look(client)
