"""What a policy in shadow would have done, told in one line."""

from datetime import datetime

import msgspec

from daemon.cli.output import count, when
from daemon.core.plans import tokens
from daemon.core.state import Pipeline


class InShadow(msgspec.Struct, frozen=True, kw_only=True):
    """A policy that decides and does not act: how often it would have started, or looked, and what it says."""

    starts: int = 0
    looks: int = 0
    last: datetime | None = None
    took_tokens: int = 0
    verdict: str | None = None
    position: int | None = None


def in_shadow(pipeline: Pipeline) -> dict[str, InShadow]:
    """Return the policies of a pipeline that are in shadow."""
    found = {}
    for policy in pipeline.settings.policies if pipeline.settings else ():
        if policy.shadow:
            shadow, standing = pipeline.shadows.get(policy.name), pipeline.verdicts.get(policy.name)
            found[policy.name] = InShadow(
                starts=shadow.starts if shadow else 0,
                looks=shadow.looks if shadow else 0,
                last=shadow.at if shadow else None,
                took_tokens=tokens(shadow.taken) if shadow else 0,
                verdict=standing.verdict if standing else None,
                position=standing.position if standing else None,
            )
    return found


def would_have(shadow: InShadow) -> str:
    """Return in words what it would have done."""
    done = [f"started {count(shadow.starts, 'run')}"] if shadow.starts else []
    done += [f"looked {count(shadow.looks, 'time')}"] if shadow.looks else []
    if not done:
        return f"last said {shadow.verdict} (#{shadow.position})" if shadow.verdict else "has said nothing yet"
    kept = f"; of what it took {shadow.took_tokens:,} tokens are pending" if shadow.took_tokens else ""
    return f"would have {' and '.join(done)}, the last at {when(shadow.last)}{kept}"
