"""Prometheus metrics of the Kafka sources, read from their reports when somebody scrapes."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from daemon.broker.report import SourceReport

OF_SOURCE = ("source",)
OF_PARTITION = ("source", "topic", "partition")

Reports = Callable[[], Iterable[SourceReport]]


class KafkaMetrics(Collector):
    """What the sources report; a partition's series ends when its source no longer has it."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def describe(self) -> Iterator[Metric]:
        """Return no description: it would have to be asked for before there is a report."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield every series; what is not known (yet) has none."""
        reports = list(self._reports())
        connected = GaugeMetricFamily(
            "rewarm_kafka_connected", "1 while the source's cluster answers.", labels=OF_SOURCE
        )
        paused = GaugeMetricFamily(
            "rewarm_kafka_paused", "1 while the source fetches nothing, for too much waits.", labels=OF_SOURCE
        )
        connects = CounterMetricFamily(
            "rewarm_kafka_connects", "Connections to the cluster: the first one, and every other after it was lost.",
            labels=OF_SOURCE,
        )  # fmt: skip
        rebuilds = CounterMetricFamily(
            "rewarm_kafka_rebuilds", "Consumers that were given up, for they made no progress.", labels=OF_SOURCE
        )
        records = CounterMetricFamily("rewarm_kafka_records", "Records that were fetched.", labels=OF_SOURCE)
        for report in reports:
            labels = [_source(report)]
            connected.add_metric(labels, report.connected)
            paused.add_metric(labels, report.paused)
            connects.add_metric(labels, report.connects)
            rebuilds.add_metric(labels, report.rebuilds)
            records.add_metric(labels, report.records)
        yield from (connected, paused, connects, rebuilds, records)
        yield from _partitions(reports)


def _partitions(reports: Iterable[SourceReport]) -> Iterator[Metric]:
    position = GaugeMetricFamily(
        "rewarm_kafka_position", "The offset that the journal reads next.", labels=OF_PARTITION
    )
    lag = GaugeMetricFamily(
        "rewarm_kafka_lag_records", "Offsets between the journal's position and the end.", labels=OF_PARTITION
    )
    age = GaugeMetricFamily(
        "rewarm_kafka_lag_seconds", "The age of the oldest record that is not in the journal.", labels=OF_PARTITION
    )
    waiting = GaugeMetricFamily(
        "rewarm_kafka_partition_waiting", "1 for a partition that is not read, by what keeps it from that.",
        labels=(*OF_PARTITION, "condition"),
    )  # fmt: skip
    for report in reports:
        for each in report.partitions:
            labels = [_source(report), each.topic, str(each.partition)]
            if each.position is not None:
                position.add_metric(labels, each.position)
            for family, value in ((lag, each.lag), (age, each.lag_seconds)):
                # While nobody answers there may be any number of records more: that there are none is not known.
                if value is not None and (value or report.connected):
                    family.add_metric(labels, value)
            if each.condition != "reading":
                waiting.add_metric([*labels, each.condition], 1)
    yield from (position, lag, age, waiting)


def _source(report: SourceReport) -> str:
    """Return the source's configured name: what it is called among all sources begins with its kind."""
    return report.name.removeprefix("kafka:")
