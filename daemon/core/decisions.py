"""What a policy answers, and what a policy is."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from daemon.core.commands import AnyCommand
from daemon.core.events import Numbers, Record

if TYPE_CHECKING:
    from daemon.core.state import Pipeline


OPERATOR: Final = "operator"
SEQUENCE: Final = "sequence"
ARBITER: Final = "arbiter"
RESERVED: Final = (OPERATOR, SEQUENCE, ARBITER)
"""The names under which rewarm itself decides; no policy may take them."""

AWAITING: Final = "awaiting_approval"
"""The verdict of a policy that is due, and wishes for nothing until a person approves it."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """A policy's conclusion: a short stable `verdict`, a sentence, its numbers, and what shall be done.

    `inputs` and `thresholds` hold what was compared, under the same names; `wakes` maps keys to instants at
    which the policy wants to be asked again (the same key replaces the earlier instant).
    """

    verdict: str
    reason: str
    inputs: Numbers = {}
    thresholds: Numbers = {}
    commands: tuple[AnyCommand, ...] = ()
    wakes: dict[str, datetime] = {}


class Policy(Protocol):
    """A frozen value whose fields are its configuration and whose one method answers a question.

    `decide` sees the pipeline's state after the fact was folded into it, and the fact. It returns None when
    the fact does not concern it. It is pure: `record.recorded_at` is the only "now".
    """

    @property
    def label(self) -> str:
        """The policy's unique name in its pipeline."""

    @property
    def version(self) -> int:
        """The version of the policy's code; it changes with every change of behaviour."""

    def decide(self, state: "Pipeline", record: Record) -> Decision | None:
        """Return what follows from the fact, if anything."""


Policies = Mapping[str, Sequence[Policy]]
"""The configured policies per pipeline, in configured order."""


def rounded(value: float) -> float:
    """Return `value` to 12 significant digits: what comparisons and records use (rule 2)."""
    return float(f"{value:.12g}")
