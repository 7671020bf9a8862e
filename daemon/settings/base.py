"""What all settings share: their base, names, and checks that more than one of them needs."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from daemon.core.events import EVENTS

NAME = r"^[a-z0-9][a-z0-9._-]{0,62}$"
Name = Annotated[str, Field(pattern=NAME)]


class Model(BaseModel):
    """Base of all settings: frozen, and no key that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def kind(name: str) -> str:
    """Return the name of a kind of event; raises ValueError for any other."""
    if name not in EVENTS:
        message = f"is no kind of event; known: {', '.join(sorted(EVENTS))}"
        raise ValueError(message)
    return name


def unique(names: Sequence[str], what: str) -> None:
    """Raise ValueError for a name that is given twice."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        message = f"two {what} are called {twice[0]!r}; give one of them another `name`"
        raise ValueError(message)
