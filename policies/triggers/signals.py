"""A measured or reported number beyond a bound: fixed, or what the values before it make usual."""

from collections.abc import Mapping, Sequence
from math import fsum, sqrt
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from daemon.core.decisions import rounded
from daemon.core.ledger import Reading
from daemon.core.signals import LONGEST
from daemon.core.state import Pipeline
from policies.triggers.base import Moment, Told, Trigger, together

PROBED = ("shift", "expected_gain")
JUDGED = ("gain", "forgetting")
FAMILIES = ("drift", "evaluation", "label", "detected")
WINDOW = 30
KNOWN = ", ".join((*PROBED, *JUDGED, *(f"{family}.NAME" for family in FAMILIES)))


class Signal(Trigger):
    """The last value of a signal lies beyond a bound, `for` so many values in a row.

    The bound is fixed (`above`, `below`), or made of the values before the judged ones: a `quantile` of them, their
    mean and so many standard deviations (`deviation`), or their mean and such a share of it (`relative`). A value
    counts while it says something of today's champion: it was measured after the last run that trained, or, `since`
    the base, after the last full training, or the last retrain that was judged. Older ones count for the bound.
    """

    key: ClassVar[str] = "signal"
    signal: str = Field(max_length=200, description="its name")
    above: float | None = Field(default=None, description="holds above it")
    below: float | None = Field(default=None, description="holds below it")
    quantile: float | None = Field(default=None, gt=0, lt=1, description="holds beyond this quantile")
    deviation: float | None = Field(default=None, ge=0, description="holds so many standard deviations from the mean")
    relative: float | None = Field(default=None, ge=0, description="holds such a share of the mean from it")
    side: Literal["above", "below"] | None = Field(default=None, description="on which side of a bound that moves")
    window: int | None = Field(default=None, ge=2, le=LONGEST, description="values of which a moving bound is made")
    least: int | None = Field(default=None, ge=1, le=LONGEST, description="values before it speaks")
    for_: int = Field(default=1, ge=1, le=LONGEST, alias="for", description="so many values in a row")
    since: Literal["settled", "base"] | None = Field(default=None, description="from when on a value counts")

    @field_validator("signal")
    @classmethod
    def _known(cls, name: str) -> str:
        family, _, rest = name.partition(".")
        if name not in (*PROBED, *JUDGED) and not (family in FAMILIES and rest):
            message = f"there is no signal {name!r}; known signals: {KNOWN}"
            raise ValueError(message)
        return name

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        given = [
            name for name in ("above", "below", "quantile", "deviation", "relative") if getattr(self, name) is not None
        ]
        if len(given) != 1:
            message = "a signal needs exactly one of `above`, `below`, `quantile`, `deviation`, `relative`"
            raise ValueError(message)
        if not self.moves and (self.side is not None or self.window is not None):
            message = (
                "`side` and `window` are of a bound that moves (`quantile`, `deviation`, `relative`): leave them out"
            )
            raise ValueError(message)
        if self.moves and self._window + self.for_ > LONGEST:
            message = f"`window` and `for` together reach over {LONGEST} values, and no more are kept"
            raise ValueError(message)
        if self.moves and self._least > self._window:
            message = "`least` must not lie above `window`"
            raise ValueError(message)
        if self.since == "settled" and self.signal in JUDGED:
            message = f"{self.signal} is measured by runs themselves: it counts `since: base`, leave `since` out"
            raise ValueError(message)
        return self

    @property
    def moves(self) -> bool:
        """Whether the bound is made of the values before."""
        return self.above is None and self.below is None

    @property
    def probed(self) -> bool:
        """Whether a probe measures it: it takes a look, or a run."""
        return self.signal in PROBED or self.signal.startswith("drift.")

    @property
    def signals(self) -> Mapping[str, int]:
        """The signal, with as many values as it needs."""
        return {self.signal: self._window + self.for_ if self.moves else max(self.for_, self._least)}

    def speaks(self, moment: Moment) -> bool:
        """Return whether there is a champion of which a value could say something."""
        return moment.state.champion is not None

    def holds(self, moment: Moment) -> bool:
        """Return whether the last values lie beyond the bound."""
        last = self._last(moment)
        if len(last) < self.for_ or not self._enough(moment.state):
            return False
        bound = self._bound(moment.state)
        return bound is not None and all(self._beyond(reading, bound) for reading in last)

    def tell(self, moment: Moment) -> Told:
        """Return the last value that counts, and the bound."""
        last, bound = self._last(moment), self._bound(moment.state)
        told = Told(
            why=self._why(moment, last, bound),
            inputs={self.signal: rounded(last[-1].value) if last else None},
            thresholds={self.signal: bound},
        )
        if self.for_ == 1:
            return told
        name = f"{self.signal}_in_a_row"
        row = Told(why="", inputs={name: self._row(last, bound)}, thresholds={name: self.for_})
        return together((told, row), told.why)

    @property
    def _window(self) -> int:
        return self.window if self.window is not None else WINDOW - max(0, WINDOW + self.for_ - LONGEST)

    @property
    def _least(self) -> int:
        if self.least is not None:
            return self.least
        return min(5, self._window) if self.moves else 1

    @property
    def _above(self) -> bool:
        return self.side != "below" if self.moves else self.above is not None

    def _last(self, moment: Moment) -> Sequence[Reading]:
        """Return the values that count, of those that are judged: the newest, as long as each counts."""
        found: list[Reading] = []
        for reading in reversed(moment.state.signals.get(self.signal, ())[-self.for_ :]):
            if not self._counts(moment, reading):
                break
            found.append(reading)
        return found[::-1]

    def _counts(self, moment: Moment, reading: Reading) -> bool:
        state = moment.state
        if moment.looked_at is not None and reading.at <= moment.looked_at:
            return False
        if self.signal in JUDGED or self.since == "base":
            return reading.position > state.retrained
        if state.active is not None and not state.active.intent.look:
            return False  # what it says is being trained on
        champion = state.champion
        if champion is None or reading.version not in (None, champion.version):
            return False
        return reading.position > max(state.settled, champion.position)

    def _enough(self, state: Pipeline) -> bool:
        """Return whether there are as many values as it needs to speak: before the judged ones, or in all."""
        return len(state.signals.get(self.signal, ())) >= self._least + (self.for_ if self.moves else 0)

    def _bound(self, state: Pipeline) -> float | None:
        """Return the bound; None: there are too few values yet."""
        series = state.signals.get(self.signal, ())
        if not self.moves:
            return self.above if self.above is not None else self.below
        before = [reading.value for reading in series[: -self.for_][-self._window :]]
        if not self._enough(state):
            return None
        if self.quantile is not None:
            return rounded(_quantile(sorted(before), self.quantile))
        mean = fsum(before) / len(before)
        if self.deviation is not None:
            far = self.deviation * sqrt(fsum((value - mean) ** 2 for value in before) / len(before))
        else:
            far = (self.relative or 0.0) * abs(mean)
        return rounded(mean + far if self._above else mean - far)

    def _beyond(self, reading: Reading, bound: float) -> bool:
        value = rounded(reading.value)
        return value > bound if self._above else value < bound

    def _row(self, last: Sequence[Reading], bound: float | None) -> int:
        """Return how many of the newest values lie beyond the bound."""
        count = 0
        for reading in reversed(last):
            if bound is None or not self._beyond(reading, bound):
                break
            count += 1
        return count

    def _why(self, moment: Moment, last: Sequence[Reading], bound: float | None) -> str:
        if not self.speaks(moment):
            return f"there is no champion yet that {self.signal} says anything of"
        if not last:
            since = "the last full training" if self.signal in JUDGED or self.since == "base" else "the last run"
            return f"no value of {self.signal} since {since}"
        value = f"{rounded(last[-1].value):g}"
        if bound is None or not self._enough(moment.state):
            have = len(moment.state.signals.get(self.signal, ()))
            needed = self._least + (self.for_ if self.moves else 0)
            return f"{self.signal} is {value}, and {have} of {needed} values are there"
        side = "above" if self._above else "below"
        if self.holds(moment):
            row = f", {self.for_} values in a row" if self.for_ > 1 else ""
            return f"{self.signal} of {value} lies {side} {bound:g}{row}"
        if self._beyond(last[-1], bound):
            return f"{self.signal} lies {side} {bound:g} for {self._row(last, bound)} of {self.for_} values"
        return f"{self.signal} of {value} does not lie {side} {bound:g}"


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Return the quantile by linear interpolation between the two nearest of the ordered values."""
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)
