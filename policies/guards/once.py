"""A dedupe key: of starts with the same key one happens, until the key expires."""

import hashlib
import string
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from daemon.core.plans import Claim, Intent
from daemon.core.state import Model, Pipeline, free_amounts
from policies.guards.base import Guarded, GuardSettings, Start, shown
from policies.periods import Period

PLACEHOLDERS: Final = (
    "policy",
    "pipeline",
    "kind",
    "champion",
    "base",
    "domains",
    "day",
    "week",
    "month",
)
LONGEST: Final = 200


def _template(text: str) -> str:
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        message = f"a key is a text with placeholders in braces: {error}"
        raise ValueError(message) from error
    for _, name, form, conversion in parts:
        if name is not None and (name not in PLACEHOLDERS or form or conversion):
            message = f"there is no placeholder {{{name}}}; known: {', '.join(PLACEHOLDERS)}"
            raise ValueError(message)
    return text


class Once(GuardSettings):
    """One start for each key: what differs in no placeholder has the same key."""

    key: Annotated[str, AfterValidator(_template)] = Field(
        min_length=1, max_length=LONGEST, description="a text with placeholders, as in {champion}"
    )
    within: Period = Field(description="how long a key stays taken once a run with it has begun to train")
    scope: Literal["policy", "pipeline"] = Field(
        default="policy", description="whose starts share keys: this policy's, or those of all policies"
    )

    def claim(self, state: Pipeline, policy: str, intent: Intent, now: datetime) -> Claim:
        """Return what a start at this moment takes for itself."""
        year, week, _ = now.isocalendar()
        key = self.key.format_map(
            {
                "policy": policy,
                "pipeline": state.name,
                "kind": intent.kind,
                "champion": _version(state.champion),
                "base": _version(state.base),
                "domains": "+".join(sorted(free_amounts(state))) or "none",
                "day": now.strftime("%Y-%m-%d"),
                "week": f"{year}-W{week:02}",
                "month": now.strftime("%Y-%m"),
            }
        )
        key = key if self.scope == "pipeline" else f"{policy}: {key}"
        if len(key) > LONGEST:
            key = f"{key[: LONGEST - 20]}... {hashlib.sha256(key.encode()).hexdigest()[:12]}"
        return Claim(key=key, seconds=self.within.total_seconds())


def against(start: Start) -> Guarded | None:
    """Return the start that has the key already."""
    claim = start.intent.claim
    until = start.state.claims.get(claim.key) if claim is not None else None
    if claim is None or until is None or until <= start.now:
        return None
    return Guarded(
        verdict="claimed",
        reason=f"A run with the key {claim.key!r} has begun already: not again before {shown(until)}.",
        until=until,
        inputs={"key": claim.key},
    )


def _version(model: Model | None) -> str:
    return "none" if model is None else f"v{model.version}"
