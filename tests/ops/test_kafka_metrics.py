"""Metrics of Kafka sources: what is reported is shown, what is not known is not."""

import re

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from daemon.broker.report import PartitionReport, SourceReport
from ops.kafka_metrics import KafkaMetrics

READ = PartitionReport(topic="events", partition=0, condition="reading", position=120, lag=7, lag_seconds=0.5)
NEW = PartitionReport(topic="events", partition=1, condition="waiting")
GONE = PartitionReport(topic="events", partition=2, condition="out_of_range", position=5)


class Reports:
    """Sources whose reports can be set."""

    def __init__(self, *reports: SourceReport) -> None:
        self.now = list(reports)
        self.registry = CollectorRegistry()
        self.registry.register(KafkaMetrics(lambda: self.now))

    def value(self, name: str, **labels: str) -> float | None:
        """Return what is shown now."""
        return self.registry.get_sample_value(f"rewarm_kafka_{name}", labels)


def report(*partitions: PartitionReport, name: str = "kafka:main") -> SourceReport:
    """Return a report of a source that pauses."""
    return SourceReport(
        name=name, connected=True, paused=True, connects=3, rebuilds=1, records=4096, partitions=partitions
    )


def test_a_source_is_shown_as_it_reports() -> None:
    """Under its configured name: whether it is connected and pauses, and what it counted."""
    reports = Reports(report(), SourceReport(name="kafka:other"))

    assert reports.value("connected", source="main") == 1
    assert reports.value("paused", source="main") == 1
    assert reports.value("connects_total", source="main") == 3
    assert reports.value("rebuilds_total", source="main") == 1
    assert reports.value("records_total", source="main") == 4096
    assert (reports.value("connected", source="other"), reports.value("paused", source="other")) == (0, 0)


def test_a_partition_is_shown_as_far_as_it_is_known() -> None:
    """Position and lag where there are some; what keeps it from being read otherwise."""
    reports = Reports(report(READ, NEW, GONE))

    def shown(name: str, partition: int, **labels: str) -> float | None:
        return reports.value(name, source="main", topic="events", partition=str(partition), **labels)

    assert [shown(name, 0) for name in ("position", "lag_records", "lag_seconds")] == [120, 7, 0.5]
    assert [shown(name, 1) for name in ("position", "lag_records", "lag_seconds")] == [None, None, None]
    assert [shown(name, 2) for name in ("position", "lag_records", "lag_seconds")] == [5, None, None]
    assert shown("partition_waiting", 0, condition="reading") is None
    assert shown("partition_waiting", 1, condition="waiting") == 1
    assert shown("partition_waiting", 2, condition="out_of_range") == 1


def test_no_lag_is_claimed_of_a_cluster_that_does_not_answer() -> None:
    """That nothing waits is not known then; what did wait still does."""
    level = PartitionReport(topic="events", partition=1, condition="reading", position=9, lag=0, lag_seconds=0.0)
    reports = Reports(report(READ, level))

    def lags(partition: int) -> list[float | None]:
        labels = {"source": "main", "topic": "events", "partition": str(partition)}
        return [reports.value(name, **labels) for name in ("lag_records", "lag_seconds")]

    assert [lags(0), lags(1)] == [[7, 0.5], [0, 0]]
    reports.now = [msgspec.structs.replace(report(READ, level), connected=False)]
    assert [lags(0), lags(1)] == [[7, 0.5], [None, None]]


def test_a_series_ends_with_its_partition() -> None:
    """A topic that was created again with fewer partitions leaves no old lag behind."""
    reports = Reports(report(READ, NEW))
    reports.now = [report(READ)]

    text = generate_latest(reports.registry).decode()

    assert 'partition="0"' in text
    assert 'partition="1"' not in text


def test_names_and_helps_are_in_order() -> None:
    """Every family has a help text, counters end in _total, and there is a family for each also before any report."""
    families = list(text_string_to_metric_families(generate_latest(Reports().registry).decode()))
    assert len(families) == 9
    filled = text_string_to_metric_families(generate_latest(Reports(report(READ, NEW)).registry).decode())
    for family in filled:
        assert family.documentation, family.name
        assert re.fullmatch(r"rewarm_kafka_[a-z_]+", family.name), family.name
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples), family.name
