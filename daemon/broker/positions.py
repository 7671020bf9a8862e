"""The names under which the journal keeps how far a partition was read."""

from daemon.core.events import Position


def cursor_of(cluster: str, topic_id: str, partition: int) -> str:
    """Return the name of a partition's cursor: the topic by its id, for a name may come to mean another topic."""
    return f"kafka:{cluster}/{topic_id}/{partition}"


def cursor_name(position: Position) -> str:
    """Return the name of the cursor that stands for the partition of a position."""
    return cursor_of(position.cluster, position.topic_id or position.topic, position.partition)


def source_of(name: str) -> str:
    """Return the event source of what a Kafka source tells of itself."""
    return f"/rewarm/kafka/{name}"
