"""A history that a journal recorded: its outside facts at their times, and the policies that were in force last."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
from pydantic import TypeAdapter, ValidationError

from daemon.core.decisions import Policies
from daemon.core.errors import RewarmError
from daemon.core.events import EVENTS, ConfigurationChanged, DataWithdrawn, OperatorRequested, Record
from daemon.journal.base import Reader, scan_where
from daemon.simulation.histories import Fact, History
from policies import AnyPolicy

if TYPE_CHECKING:
    from policies.base import BasePolicy

TOLD: Final = frozenset(kind for kind, event in EVENTS.items() if event.origin in {"outside", "operator"})
GENERAL: Final = frozenset({"pause", "resume", "retrain", "retry"})
"""What a person may ask of a pipeline whatever has happened; other requests are about runs that were."""


class InForce(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration as a journal recorded it, and the policies that it made."""

    changed: ConfigurationChanged
    policies: Policies


def recorded(reader: Reader, pipelines: Collection[str]) -> History:
    """Return what a journal was told from outside of these pipelines; raises RewarmError when that is nothing."""
    withdrawn: set[int] = set()
    left_out: Counter[str] = Counter()
    first, count, head = None, 0, reader.head()
    for record in scan_where(reader, 0, kinds=TOLD, upto=head):
        why = _unusable(record, pipelines)
        if why is not None:
            left_out[why] += 1
            continue
        first, count = first or record.recorded_at, count + 1
        if isinstance(record.event, DataWithdrawn) and record.event.arrival is not None:
            withdrawn.add(record.event.arrival)
    last = reader.records(head - 1, 1)
    if first is None or not last:
        raise RewarmError(
            f"The journal holds no outside fact about {', '.join(sorted(pipelines)) or 'any pipeline'}: "
            "choose a made-up history, or another --journal."
        )

    def facts() -> Iterator[Fact]:
        for record in scan_where(reader, 0, kinds=TOLD, upto=head):
            if record.pipeline is not None and _unusable(record, pipelines) is None:
                key = record.position if record.position in withdrawn else None
                yield Fact(record.recorded_at, record.pipeline, record.event, key, record.position)

    return History(
        name="journal",
        description=f"{count:,} facts as they were recorded",
        begin=first,
        end=last[0].recorded_at,
        facts=facts,
        left_out=dict(sorted(left_out.items())),
    )


def in_force(reader: Reader) -> InForce | None:
    """Return the configuration that the journal recorded last; raises RewarmError for a policy of another release."""
    changed = None
    for record in scan_where(reader, 0, kinds=("configuration.changed",)):
        if isinstance(record.event, ConfigurationChanged):
            changed = record.event
    if changed is None:
        return None
    adapter: TypeAdapter[BasePolicy] = TypeAdapter(AnyPolicy)
    policies: dict[str, Sequence[BasePolicy]] = {}
    for name, settings in changed.pipelines.items():
        try:
            policies[name] = [adapter.validate_json(policy.configuration) for policy in settings.policies]
        except ValidationError as error:
            raise RewarmError(
                f"A policy of {name} that the journal recorded is none of this release: {error}. "
                "Give a configuration file by --config, and a made-up history."
            ) from error
    return InForce(changed=changed, policies=policies)


def _unusable(record: Record, pipelines: Collection[str]) -> str | None:
    """Return why a fact has no place in another course of events, if it has none."""
    if record.pipeline is None or record.pipeline not in pipelines:
        return "facts about other pipelines or none"
    event = record.event
    if isinstance(event, OperatorRequested) and (event.verb not in GENERAL or event.dead_letter is not None):
        return "requests about runs and models that were"
    return None
