"""An event's way by Kafka: to a topic that the daemon reads, answered by the broker once all replicas have it."""

import contextlib

import msgspec

from daemon.broker.access import Access
from daemon.broker.positions import cursor_of
from daemon.cli.cluster import hurried, look, servers
from daemon.cli.delivery import CloudEvent, Delivered
from daemon.cli.positions import topic_named
from daemon.config import Configuration, Kafka, topics_of
from daemon.core.errors import BrokerError, RewarmError

SECONDS = 10.0
"""Longest that the broker's answer is waited for."""
CLOSE_SECONDS = 1.0
CONTENT_TYPE = b"application/cloudevents+json; charset=UTF-8"


def destination(configuration: Configuration, text: str) -> tuple[Kafka, str]:
    """Return source and topic of `SOURCE/TOPIC` or `TOPIC`, the first ones of all for ""; raises RewarmError."""
    if not configuration.kafka:
        raise RewarmError("No Kafka source is configured: add one to `sources`.")
    first = configuration.kafka[0]
    if not text:
        return first, first.settings.topics[0].name
    name, topic = topic_named(text, topics_of(configuration))
    return next(each for each in configuration.kafka if each.settings.name == name), topic


def produce(kafka: Kafka, topic: str, event: CloudEvent, head: int) -> Delivered:
    """Send an event, keyed by its pipeline, and return where it lies; raises BrokerError when that is not certain.

    A topic that does not exist is not made by the way.
    """
    name, access = kafka.settings.name, kafka.access
    sight = look(access, [topic])
    seen = sight.topics.get(topic)
    if seen is None:
        why = sight.troubles.get(topic) or "There is no such topic: create it first."
        raise BrokerError(f"{topic} in the Kafka cluster at {servers(access)}: {why}")
    partition, offset = _send(access, topic, event)
    return Delivered(
        id=event.id,
        source=event.source,
        type=event.type,
        way="kafka",
        topic=topic,
        partition=partition,
        offset=offset,
        cursor=cursor_of(sight.cluster, seen.topic_id or topic, partition),
        where=f"kafka:{name}/{topic}/{partition}@{offset}",
        after=head,
    )


def _send(access: Access, topic: str, event: CloudEvent) -> tuple[int, int]:
    """Return the partition and the offset that the broker gave the event."""
    from kafka import KafkaProducer
    from kafka.errors import KafkaError

    from daemon.broker.causes import explain
    from daemon.broker.client import arguments

    access = hurried(access, SECONDS)
    bound = int(access.request_timeout * 1000)
    try:
        producer = KafkaProducer(
            **arguments(access),
            acks="all",
            max_block_ms=bound,
            delivery_timeout_ms=bound,
            allow_auto_create_topics=False,
        )
        try:
            headers = [("content-type", CONTENT_TYPE)]
            key = event.subject.encode() if event.subject is not None else None
            sent = producer.send(topic, msgspec.json.encode(event), key=key, headers=headers)
            answer = sent.get(timeout=access.request_timeout + CLOSE_SECONDS)
        finally:
            with contextlib.suppress(KafkaError):
                producer.close(CLOSE_SECONDS)
    except KafkaError as error:
        again = f"sent again with --id {event.id} --source {event.source} it counts once"
        raise BrokerError(
            f"The Kafka cluster at {servers(access)} did not confirm the event: {explain(access, error)} "
            f"It may be there or not: {again}."
        ) from error
    return int(answer.partition), int(answer.offset)
