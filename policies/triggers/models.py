"""What became of the model since its last full training: increments, and what they forgot."""

from typing import ClassVar

from pydantic import Field

from daemon.core.decisions import rounded
from policies.triggers.base import Moment, Told, Trigger


def promoted(count: int) -> str:
    """Return in a clause how many increments were."""
    return "1 increment was promoted" if count == 1 else f"{count} increments were promoted"


class Increments(Trigger):
    """So many increments were promoted since the last full training."""

    key: ClassVar[str] = "increments"
    increments: int = Field(ge=1, description="from so many on")

    def speaks(self, moment: Moment) -> bool:
        """Return whether there is a model that they could continue."""
        return moment.state.champion is not None

    def holds(self, moment: Moment) -> bool:
        """Return whether there were so many."""
        return moment.state.increments >= self.increments

    def tell(self, moment: Moment) -> Told:
        """Return how many there were."""
        count = moment.state.increments
        why = f"{promoted(count)} since the last full training"
        if count < self.increments:
            why = f"{count} of {self.increments} increments were promoted since the last full training"
        return Told(why=why, inputs={self.key: count}, thresholds={self.key: self.increments})


class Forgotten(Trigger):
    """Increments have raised the loss so far since the last full training: of the worst domain, or of one."""

    key: ClassVar[str] = "forgotten"
    forgotten: float = Field(gt=0, description="from so much on, in the model's unit (nats per byte)")
    domain: str | None = Field(default=None, min_length=1, max_length=200, description="of this domain alone")

    def speaks(self, moment: Moment) -> bool:
        """Return whether there is a model that could have forgotten."""
        return moment.state.champion is not None

    def worst(self, moment: Moment) -> tuple[str, float] | None:
        """Return the domain that is asked about, and how far its loss has risen; None: it was not measured."""
        champion = moment.state.champion
        if champion is None or not champion.forgotten:
            return None
        if self.domain is None:
            return max(champion.forgotten.items(), key=lambda each: (each[1], each[0]))
        rise = champion.forgotten.get(self.domain)
        return (self.domain, rise) if rise is not None else None

    def holds(self, moment: Moment) -> bool:
        """Return whether it has risen so far."""
        worst = self.worst(moment)
        return worst is not None and rounded(worst[1]) >= self.forgotten

    def tell(self, moment: Moment) -> Told:
        """Return how far it has risen."""
        worst = self.worst(moment)
        name = self.key if self.domain is None else f"{self.key}.{self.domain}"
        if worst is None:
            why = "nothing was measured as forgotten since the last full training"
        else:
            allowed = "" if rounded(worst[1]) >= self.forgotten else f", of {self.forgotten:g}"
            why = f"the loss of {worst[0]} rose by {rounded(worst[1]):g} since the last full training{allowed}"
        rise = rounded(worst[1]) if worst is not None else None
        return Told(why=why, inputs={name: rise}, thresholds={name: self.forgotten})
