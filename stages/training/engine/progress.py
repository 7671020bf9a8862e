"""What is told of a training: how fast it is, what it has lost where, and the points of its curves."""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence

CURVE_POINTS = 400
SMOOTHED = 20.0
"""Seconds over which the speed is smoothed."""


class Speed:
    """Steps a second over the last `SMOOTHED` seconds."""

    def __init__(self, step: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._marks = deque([(clock(), step)])

    def at(self, step: int) -> float:
        """Return the speed now that `step` is done; 0 before any time has passed."""
        now = self._clock()
        began, first = self._marks[0]
        if now - self._marks[-1][0] >= 1.0:
            self._marks.append((now, step))
        while len(self._marks) > 1 and now - self._marks[1][0] >= SMOOTHED:
            self._marks.popleft()
        return (step - first) / (now - began) if now > began else 0.0


class Progress:
    """Gathers the losses of steps into at most `CURVE_POINTS` points, each the means since the point before."""

    def __init__(self, steps: int) -> None:
        self.loss: float | None = None
        self.domains: dict[str, float] = {}
        """The last point's mean loss, of everything and of each domain in it."""
        self._every = -(-steps // CURVE_POINTS)
        self._steps = steps
        self._losses: dict[str, list[float]] = defaultdict(list)
        self._norms: list[float] = []

    def due(self, step: int) -> bool:
        """Return whether a point falls on this step."""
        return step % self._every == 0 or step == self._steps

    def note(self, domains: Sequence[str], losses: Sequence[float], norm: float) -> None:
        """Take in a step: its rows' losses with their domains, and its gradient's norm before it was clipped."""
        for domain, loss in zip(domains, losses, strict=True):
            self._losses[domain].append(loss)
        self._norms.append(norm)

    def point(self) -> dict[str, float]:
        """Return the means since the last point, and begin the next; where no step was noted, the last point's."""
        if not self._norms:
            return self.told()
        everything = [loss for losses in self._losses.values() for loss in losses]
        self.loss = sum(everything) / len(everything)
        self.domains = {name: sum(each) / len(each) for name, each in sorted(self._losses.items())}
        values = {**self.told(), "gradient_norm": sum(self._norms) / len(self._norms)}
        self._losses.clear()
        self._norms.clear()
        return values

    def told(self) -> dict[str, float]:
        """Return the last point's losses under the names that they are told by; none before the first."""
        whole = {} if self.loss is None else {"loss": self.loss}
        return whole | {f"loss_{name}": loss for name, loss in self.domains.items()}
