"""What a policy in shadow sees: the pipeline as it would be, had its starts taken what was pending.

`Shadow.taken` is kept a part of what is pending: what a run uses up, or an ingest counts anew, changes it alike.
"""

from datetime import datetime, timedelta

from msgspec.structs import replace

from daemon.core.commands import StartRun
from daemon.core.events import DecisionMade, Record
from daemon.core.ledger import Shadow
from daemon.core.plans import Amounts, Intent, subtract, tokens
from daemon.core.state import Pipeline, free_tokens, free_waited


def view(pipeline: Pipeline, policy: str, now: datetime) -> Pipeline:
    """Return the pipeline as the policy would have left it, had it acted; as it is where it never would have."""
    shadow = pipeline.shadows.get(policy)
    if shadow is None:
        return pipeline
    active = pipeline.active
    if active is not None and active.policy != policy and shadow.taken:
        active = replace(active, plan=replace(active.plan, new=subtract(active.plan.new, shadow.taken)))
    pending = subtract(pipeline.pending, shadow.taken)
    seen = replace(
        pipeline,
        pending=pending,
        waiting=tokens(pending),
        waiting_since=_since(pipeline, shadow),
        looked=subtract(shadow.looked, shadow.taken) if shadow.looked else pipeline.looked,
        looked_at=shadow.looked_at or pipeline.looked_at,
        active=active,
        begun=pipeline.begun if shadow.began is None else {**pipeline.begun, policy: shadow.began},
        claims={**pipeline.claims, **shadow.claims} if shadow.claims else pipeline.claims,
    )
    seen = replace(seen, waited=min(_waited(seen, shadow, now), free_waited(pipeline, now)), waited_at=now)
    return _retrained(seen, shadow)


def noted(pipeline: Pipeline, record: Record, event: DecisionMade) -> Pipeline:
    """Note what a policy in shadow would have taken, or looked at, had it acted."""
    intent = next((command.intent for command in event.commands if isinstance(command, StartRun)), None)
    if intent is None:
        return pipeline
    now = record.recorded_at
    before = pipeline.shadows.get(event.policy) or Shadow(taken={}, at=now, position=record.position, starts=0)
    if intent.look:
        # It would have looked: the data stays, and whether it would have trained nobody knows.
        after = replace(before, at=now, looks=before.looks + 1, looked=pipeline.pending, looked_at=now)
    else:
        after = _started(pipeline, record, before, intent)
    return replace(pipeline, shadows={**pipeline.shadows, event.policy: after})


def arrived(pipeline: Pipeline, now: datetime) -> dict[str, Shadow]:
    """Return the shadows when something arrives at the pipeline, which does not have it yet."""
    shadows = {}
    for policy, shadow in pipeline.shadows.items():
        seen = view(pipeline, policy, now)
        waited = _waited(seen, shadow, now) if seen.pending else 0.0
        since = shadow.since if seen.pending and shadow.since is not None else now
        shadows[policy] = replace(shadow, since=since, waited=waited, waited_at=now)
    return shadows


def consumed(shadows: dict[str, Shadow], upto: int, gone: Amounts) -> dict[str, Shadow]:
    """Return the shadows once a run has used up `gone`: all that was pending before position `upto`."""
    return {
        policy: replace(
            shadow,
            taken={} if upto >= shadow.position else subtract(shadow.taken, gone),
            looked=subtract(shadow.looked, gone),
        )
        for policy, shadow in shadows.items()
    }


def _started(pipeline: Pipeline, record: Record, before: Shadow, intent: Intent) -> Shadow:
    now = record.recorded_at
    claims = {key: at for key, at in before.claims.items() if at > now}
    if intent.claim is not None:
        claims[intent.claim.key] = now + timedelta(seconds=intent.claim.seconds)
    after = replace(
        before,
        taken=pipeline.pending,
        at=now,
        position=record.position,
        starts=before.starts + 1,
        kind=intent.kind,
        began=now,
        since=None,
        waited=0.0,
        waited_at=now,
        looked={},
        looked_at=None,
        claims=claims,
    )
    if intent.kind == "increment":
        return after
    return replace(after, retrained=record.position, retrained_at=now, increments=pipeline.increments)


def _since(pipeline: Pipeline, shadow: Shadow) -> datetime | None:
    """Return since when what it has not taken waits: of what no run has taken either."""
    if shadow.began is None:
        return pipeline.waiting_since
    if shadow.since is None or pipeline.waiting_since is None:
        return None
    return max(shadow.since, pipeline.waiting_since)


def _waited(seen: Pipeline, shadow: Shadow, now: datetime) -> float:
    if shadow.waited_at is None:
        return free_waited(seen, now)
    return shadow.waited + free_tokens(seen) * max(0.0, (now - shadow.waited_at).total_seconds())


def _retrained(seen: Pipeline, shadow: Shadow) -> Pipeline:
    """Let the last full training be the one that the policy would have begun, if that was later."""
    champion = seen.champion
    if shadow.retrained_at is None or champion is None or seen.retrained > shadow.retrained:
        return seen
    newer = replace(champion, full_at=shadow.retrained_at)
    increments = max(0, seen.increments - shadow.increments)
    return replace(seen, champion=newer, retrained=shadow.retrained, increments=increments)
