"""How far each partition is: what a source tells of itself to metrics and health, and to its watchdog. Pure."""

from collections.abc import Mapping

from daemon.broker.report import PartitionReport
from daemon.broker.sight import Sight
from daemon.sources.kafka.judge import Judgement, Place
from daemon.sources.kafka.lag import Ends
from daemon.sources.kafka.readings import Reading


class Standing:
    """The ends of partitions as they were seen, beside how far each was read."""

    def __init__(self) -> None:
        self._ends: dict[tuple[str, int], Ends] = {}
        self._ids: dict[str, str] = {}

    def see(self, sight: Sight, at: float) -> None:
        """Take note of what was seen at `at`."""
        self._ids = {topic: seen.topic_id for topic, seen in sight.topics.items()}
        kept: dict[tuple[str, int], Ends] = {}
        for seen in sight.topics.values():
            for number, extent in seen.partitions.items():
                key = seen.topic_id, number
                kept[key] = self._ends.get(key) or Ends()
                kept[key].see(at, extent.end)
        self._ends = kept

    def behind(self, reading: Reading) -> tuple[int, int] | None:
        """Return where the reading of a partition is, and where its end was seen; None where no end is known."""
        ends = self._ends.get((reading.start.topic_id, reading.place.partition))
        if ends is None or ends.last is None:
            return None
        return max(reading.next, reading.passed), ends.last

    def partitions(
        self, judgement: Judgement, active: Mapping[Place, Reading], now: float, wall: float
    ) -> tuple[PartitionReport, ...]:
        """Return a report of each partition that is known; `wall` is the time in seconds since 1970."""
        return tuple(
            self._partition(judgement, place, active.get(place), now, wall)
            for place in sorted(judgement.conditions.keys() | active.keys())
        )

    def _partition(
        self, judgement: Judgement, place: Place, reading: Reading | None, now: float, wall: float
    ) -> PartitionReport:
        condition, position = judgement.conditions.get(place, ("reading", None))
        stands = position
        if reading is not None:
            condition, position, stands = "reading", reading.journaled, reading.stands
        elif condition == "reading":
            condition = "waiting"  # for the last answers to what was read before, or for another try
        ends = self._ends.get((self._ids.get(place.topic, ""), place.partition))
        end = ends.last if ends else None
        lag = None if stands is None or end is None else max(0, end - stands)
        seconds = None
        if ends is not None and stands is not None and lag is not None:
            seconds = ends.age(stands, now) if lag else 0.0
            if seconds is None and reading is not None and reading.written is not None:
                seconds = max(0.0, wall - reading.written / 1000)  # the record behind it is about as old
        return PartitionReport(
            topic=place.topic,
            partition=place.partition,
            condition=condition,
            position=position,
            lag=lag,
            lag_seconds=seconds,
        )
