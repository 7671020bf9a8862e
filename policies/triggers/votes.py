"""Triggers composed of triggers: all, any, none, a majority, at least so many; and the union of all there are.

A member that has nothing to compare with yet, a signal before there is a champion, abstains: the others vote.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar, Self

from msgspec.structs import replace
from pydantic import Discriminator, Field, Tag, model_validator

from policies.triggers.amounts import Arrivals, Documents, Tokens
from policies.triggers.base import Moment, Told, Trigger, everything, leaves, needed, together
from policies.triggers.costs import Regret
from policies.triggers.models import Forgotten, Increments
from policies.triggers.signals import Signal
from policies.triggers.times import Age, Silence


class Vote(Trigger):
    """Base of what is composed: `quorum` says how many of the members that speak must hold."""

    @property
    @abstractmethod
    def parts(self) -> tuple[Trigger, ...]:
        """The members."""

    @abstractmethod
    def quorum(self, speaking: int) -> int:
        """Return how many of so many must hold."""

    @property
    def signals(self) -> Mapping[str, int]:
        """The signals of all members, each as long as whoever needs most of it."""
        return needed(self.parts)

    def speaks(self, moment: Moment) -> bool:
        """Return whether any member does."""
        for part in self.parts:  # noqa: SIM110 - asked with every fact: any() takes three times as long
            if part.speaks(moment):
                return True
        return False

    def holds(self, moment: Moment) -> bool:
        """Return whether enough of the members that speak hold."""
        speaking = self._speaking(moment)
        return bool(speaking) and self.decided(sum(part.holds(moment) for part in speaking), len(speaking))

    def decided(self, holding: int, speaking: int) -> bool:
        """Return whether so many are enough."""
        return holding >= self.quorum(speaking)

    def wakes(self, moment: Moment) -> datetime | None:
        """Return the first instant, of those at which time changes a member, at which enough of them hold."""
        instants = sorted({at for leaf in leaves(self) if (at := leaf.wakes(moment)) is not None})
        return next((at for at in instants if self.holds(replace(moment, now=at))), None)

    def tell(self, moment: Moment) -> Told:
        """Return the numbers of all members, and of those that tip it why."""
        speaking = self._speaking(moment)
        told = [(part.holds(moment) and part in speaking, part.tell(moment)) for part in self.parts]
        holds = self.holds(moment)
        tipping = [each.why for held, each in told if held == holds] or [each.why for _, each in told]
        return self.numbers(moment, self.because(tipping, sum(held for held, _ in told), len(speaking)))

    def numbers(self, moment: Moment, why: str) -> Told:
        """Return the numbers of all that it is composed of."""
        return together((leaf.tell(moment) for leaf in leaves(self)), why)

    def because(self, whys: Sequence[str], holding: int, speaking: int) -> str:
        """Return the clause."""
        del holding, speaking
        return "; ".join(whys)

    def _speaking(self, moment: Moment) -> tuple[Trigger, ...]:
        if everything(moment):
            return self.parts
        return tuple(part for part in self.parts if part.speaks(moment))


class AnyOf(Vote):
    """One of them holds."""

    key: ClassVar[str] = "any"
    any: tuple["AnyTrigger", ...] = Field(min_length=1, max_length=20, description="one of these holds")

    @property
    def parts(self) -> tuple[Trigger, ...]:
        """The members."""
        return self.any

    def quorum(self, speaking: int) -> int:
        """Return one."""
        del speaking
        return 1

    def holds(self, moment: Moment) -> bool:
        """Return whether one holds: the same as of any vote, and quicker."""
        for part in self.any:  # noqa: SIM110 - asked with every fact: any() takes three times as long
            if part.holds(moment) and part.speaks(moment):
                return True
        return False

    def wakes(self, moment: Moment) -> datetime | None:
        """Return when the first of them will hold."""
        first = None
        for part in self.any:
            at = part.wakes(moment)
            if at is not None and (first is None or at < first) and part.speaks(moment):
                first = at
        return first


class AllOf(Vote):
    """All of them hold."""

    key: ClassVar[str] = "all"
    all: tuple["AnyTrigger", ...] = Field(min_length=1, max_length=20, description="all of these hold")

    @property
    def parts(self) -> tuple[Trigger, ...]:
        """The members."""
        return self.all

    def quorum(self, speaking: int) -> int:
        """Return all of them."""
        return speaking


class NoneOf(Vote):
    """None of them holds."""

    key: ClassVar[str] = "none"
    none: tuple["AnyTrigger", ...] = Field(min_length=1, max_length=20, description="none of these holds")

    @property
    def parts(self) -> tuple[Trigger, ...]:
        """The members."""
        return self.none

    def quorum(self, speaking: int) -> int:
        """Return none."""
        del speaking
        return 0

    def decided(self, holding: int, speaking: int) -> bool:
        """Return whether none holds."""
        return holding <= self.quorum(speaking)

    def tell(self, moment: Moment) -> Told:
        """Return the numbers of all members, and why those hold that must not, or that none does."""
        told = [(part.holds(moment), part.tell(moment)) for part in self.parts]
        against = [each.why for held, each in told if held]
        whys = against or [each.why for _, each in told]
        return self.numbers(moment, "; ".join(whys))


class Majority(Vote):
    """More than half of them hold."""

    key: ClassVar[str] = "majority"
    majority: tuple["AnyTrigger", ...] = Field(min_length=1, max_length=20, description="more than half of these hold")

    @property
    def parts(self) -> tuple[Trigger, ...]:
        """The members."""
        return self.majority

    def quorum(self, speaking: int) -> int:
        """Return more than half."""
        return speaking // 2 + 1

    def because(self, whys: Sequence[str], holding: int, speaking: int) -> str:
        """Return the clause with the count."""
        return f"{holding} of {speaking} hold, {self.quorum(speaking)} are needed: {'; '.join(whys)}"


class AtLeast(Vote):
    """At least so many of them hold; where fewer speak, all that do."""

    key: ClassVar[str] = "at_least"
    at_least: int = Field(ge=1, description="so many must hold")
    of: tuple["AnyTrigger", ...] = Field(min_length=1, max_length=20, description="of these")

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.at_least > len(self.of):
            message = f"`at_least: {self.at_least}` is more than the {len(self.of)} triggers of `of`"
            raise ValueError(message)
        return self

    @property
    def parts(self) -> tuple[Trigger, ...]:
        """The members."""
        return self.of

    def quorum(self, speaking: int) -> int:
        """Return so many."""
        return min(self.at_least, speaking)

    def because(self, whys: Sequence[str], holding: int, speaking: int) -> str:
        """Return the clause with the count."""
        return f"{holding} of {speaking} hold, {self.quorum(speaking)} are needed: {'; '.join(whys)}"


KEYS = tuple(
    kind.key
    for kind in (
        *(Tokens, Documents, Arrivals, Age, Silence, Increments, Forgotten, Signal, Regret),
        *(AnyOf, AllOf, NoneOf, Majority, AtLeast),
    )
)


def key_of(value: Any) -> str | None:  # noqa: ANN401 - whatever stands in a file
    """Return the one key by which a trigger is recognised; None: there is none, or more than one."""
    if isinstance(value, Trigger):
        return value.key
    found = [key for key in KEYS if isinstance(value, Mapping) and key in value]
    return found[0] if len(found) == 1 else None


AnyTrigger = Annotated[
    Annotated[Tokens, Tag("tokens")]
    | Annotated[Documents, Tag("documents")]
    | Annotated[Arrivals, Tag("arrivals")]
    | Annotated[Age, Tag("age")]
    | Annotated[Silence, Tag("silence")]
    | Annotated[Increments, Tag("increments")]
    | Annotated[Forgotten, Tag("forgotten")]
    | Annotated[Signal, Tag("signal")]
    | Annotated[Regret, Tag("regret")]
    | Annotated[AnyOf, Tag("any")]
    | Annotated[AllOf, Tag("all")]
    | Annotated[NoneOf, Tag("none")]
    | Annotated[Majority, Tag("majority")]
    | Annotated[AtLeast, Tag("at_least")],
    Discriminator(
        key_of,
        custom_error_type="trigger",
        custom_error_message=(
            f"a trigger is keys and values with exactly one of these keys: {', '.join(KEYS)};"
            " several conditions are a list below `any` or `all`"
        ),
    ),
]
"""Any trigger, recognised by which key is there."""

for _vote in (AnyOf, AllOf, NoneOf, Majority, AtLeast):
    _vote.model_rebuild()
