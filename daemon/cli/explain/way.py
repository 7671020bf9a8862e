"""An arrival's way as a person reads it: which runs had it, and which versions saw it."""

from collections.abc import Iterator

from rich.console import RenderableType

from daemon.cli.output import count, facts, heading, program, when
from daemon.sightings import Had, Saw, Way

SEEN = {"trained": "was trained on it", "replayed": "replayed it", "continues": "continues version {of}, which saw it"}


def render_way(way: Way) -> list[RenderableType]:
    """Return an arrival's way in sections."""
    out: list[RenderableType] = [heading(f"#{way.position}: an arrival of {way.domain} for {way.pipeline}")]
    out += [facts(_facts(way)), "", heading("Which runs had it")]
    out += [facts(_had(each) for each in way.had)] if way.had else ["  None: it has not been ingested."]
    out += ["", heading("Which versions saw it")]
    out += [facts(_saw(each, way.champion) for each in way.saw)] if way.saw else ["  None."]
    if way.withdrawn is not None and way.carried:
        rollback = f"{program()} request rollback {way.pipeline}"
        retrain = f"{program()} request retrain {way.pipeline}"
        out += ["", f"  The champion saw it before it was withdrawn. `{rollback}` brings an older version back,"]
        out += [f"  `{retrain}` trains anew without it; only one that starts from scratch forgets it for certain."]
    return out


def _facts(way: Way) -> Iterator[tuple[str, str]]:
    yield "arrived", f"{when(way.arrived_at)} from {way.source}, id {way.id}"
    yield "lies at", way.uri
    documents = f"{count(way.amount.documents, 'document')}, " if way.amount.documents else ""  # not counted yet
    yield "holds", f"{documents}{way.amount.tokens:,} tokens"
    if way.duplicates:
        yield "dropped", f"{way.duplicates:,} documents that were seen before"
    if way.refused is not None:
        yield "refused", way.refused
    if way.again:
        yield "backfilled", f"pending again since {', '.join(f'#{position}' for position in way.again)}"
    if way.withdrawn is not None and way.withdrawn_at is not None:
        yield "withdrawn", f"{when(way.withdrawn_at)} (#{way.withdrawn}): it is not sampled since"


def _had(each: Had) -> tuple[str, str]:
    return each.run, each.outcome


def _saw(each: Saw, champion: int | None) -> tuple[str, str]:
    words = SEEN[each.how].format(of=each.of)
    state = ", rolled back" if each.rolled_back else ", the champion" if each.version == champion else ""
    return f"version {each.version}", f"{words} ({each.run}, {when(each.promoted_at)}){state}"
