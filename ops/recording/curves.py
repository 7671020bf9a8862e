"""Training curves: the metrics.jsonl that an attempt leaves in its folder."""

import math
from pathlib import Path

import msgspec

from ops.recording.content import Metric

Point = dict[str, object]
_decoder = msgspec.json.Decoder(Point)


class Curves:
    """Reads attempts' curves, each line once; `forget` makes it start over (sending twice changes nothing)."""

    def __init__(self, state: Path) -> None:
        self._runs = state / "runs"
        self._offsets: dict[Path, int] = {}

    def new_points(self, run: str, stage: str, attempt: int) -> list[Metric]:
        """Return the points of an attempt that were not returned yet; none where there is no file."""
        path = self._path(run, stage, attempt)
        offset = self._offsets.get(path, 0)
        data = _complete_lines(path, offset)
        self._offsets[path] = offset + len(data)
        return [metric for point in _points(data) for metric in _metrics(point)]

    def done(self, run: str, stage: str, attempt: int) -> None:
        """Drop the memory of an attempt that has ended."""
        self._offsets.pop(self._path(run, stage, attempt), None)

    def forget(self) -> None:
        """Start every file from its beginning."""
        self._offsets.clear()

    def whole(self, run: str, stage: str, attempt: int) -> list[Point]:
        """Return a stage's curve over its attempts up to `attempt`; where they overlap the later one holds."""
        steps: dict[int, Point] = {}
        for number in range(1, attempt + 1):
            points = _points(_complete_lines(self._path(run, stage, number), 0))
            if points:
                first = _step(points[0])
                steps = {step: point for step, point in steps.items() if step < first}
            steps.update((_step(point), point) for point in points)
        return [steps[step] for step in sorted(steps)]

    def _path(self, run: str, stage: str, attempt: int) -> Path:
        return self._runs / run / stage / str(attempt) / "metrics.jsonl"


def _complete_lines(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
    except OSError:
        return b""
    return data[: data.rfind(b"\n") + 1]


def _points(data: bytes) -> list[Point]:
    found = []
    for line in data.splitlines():
        try:
            point = _decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        if isinstance(point.get("step"), int) and isinstance(point.get("time"), int | float):
            found.append(point)
    return found


def _step(point: Point) -> int:
    step = point["step"]
    return step if isinstance(step, int) else 0


def number(value: object) -> float | None:
    """Return a finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _metrics(point: Point) -> list[Metric]:
    at = number(point["time"]) or 0.0
    values = {key: number(value) for key, value in point.items() if key not in {"step", "time"}}
    return [
        Metric(key=key, value=value, timestamp=round(at * 1000), step=_step(point))
        for key, value in values.items()
        if value is not None
    ]
