"""Enough new data: tokens, documents or arrivals, in all or of one domain."""

from abc import abstractmethod
from typing import ClassVar

from pydantic import Field

from daemon.core.plans import NOTHING, Amount
from policies.triggers.base import Moment, Told, Trigger


class Amounted(Trigger):
    """Base of what compares the data that waits with a number."""

    domain: str | None = Field(default=None, min_length=1, max_length=200, description="of this domain alone")

    @property
    @abstractmethod
    def least(self) -> int:
        """From how many on it holds."""

    @abstractmethod
    def counted(self, amount: Amount) -> int:
        """Return how many an amount has."""

    def waiting(self, moment: Moment) -> int:
        """Return how many wait."""
        if self.domain is not None:
            return self.counted(moment.pending.get(self.domain, NOTHING))
        total = 0
        for amount in moment.pending.values():
            total += self.counted(amount)
        return total

    def holds(self, moment: Moment) -> bool:
        """Return whether so many wait."""
        return self.waiting(moment) >= self.least

    def tell(self, moment: Moment) -> Told:
        """Return how many wait, and how many are asked for."""
        waiting = self.waiting(moment)
        name = self.key if self.domain is None else f"{self.key}.{self.domain}"
        what = f"new {self.key}" if self.domain is None else f"new {self.key} of {self.domain}"
        why = f"{waiting:,} {what} wait" if waiting >= self.least else f"{waiting:,} of {self.least:,} {what} wait"
        return Told(why=why, inputs={name: waiting}, thresholds={name: self.least})


class Tokens(Amounted):
    """So many new tokens wait."""

    key: ClassVar[str] = "tokens"
    tokens: int = Field(ge=1, description="from so many on")

    @property
    def least(self) -> int:
        """From how many on it holds."""
        return self.tokens

    def counted(self, amount: Amount) -> int:
        """Return an amount's tokens."""
        return amount.tokens

    def holds(self, moment: Moment) -> bool:
        """Return whether so many wait."""
        return self.waiting(moment) >= self.tokens

    def waiting(self, moment: Moment) -> int:
        """Return how many wait: the state counts them in all."""
        if self.domain is None and moment.pending is moment.state.pending:
            return moment.state.waiting
        return super().waiting(moment)


class Documents(Amounted):
    """So many new documents wait; what producers do not count, counts once it is ingested."""

    key: ClassVar[str] = "documents"
    documents: int = Field(ge=1, description="from so many on")

    @property
    def least(self) -> int:
        """From how many on it holds."""
        return self.documents

    def counted(self, amount: Amount) -> int:
        """Return an amount's documents."""
        return amount.documents


class Arrivals(Amounted):
    """So many arrivals wait."""

    key: ClassVar[str] = "arrivals"
    arrivals: int = Field(ge=1, description="from so many on")

    @property
    def least(self) -> int:
        """From how many on it holds."""
        return self.arrivals

    def counted(self, amount: Amount) -> int:
        """Return how many arrivals an amount is of."""
        return amount.arrivals
