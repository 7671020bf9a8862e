"""What `explain` says of a curation: what stays, which cut that is, and what each cut's trial found."""

from collections.abc import Iterator

from daemon.core.events import DataCurated
from daemon.core.plans import Cut


def kept(event: DataCurated) -> str:
    """Return how much of the data is trained on."""
    if event.cut is None:
        return f"there was no champion to score by, so all {event.documents:,} documents are kept"
    text = f"{event.kept:,} of {event.documents:,} documents ({event.kept_tokens:,} tokens) are trained on"
    changed = [f"{event.rewritten:,} were rewritten"] if event.rewritten else []
    changed += [f"{event.left_out:,} were left out by the callable"] if event.left_out else []
    return f"{text}; {' and '.join(changed)}" if changed else text


def bands(event: DataCurated, unit: str) -> Iterator[str]:
    """Yield each domain's band, and what the trials found."""
    for domain, band in sorted(event.domains.items()):
        stay = f"{band.kept:,} of {band.documents:,} documents score {band.low:.4f} to {band.high:.4f} {unit}"
        yield f"{domain}: {stay} (all: mean {band.mean:.4f}, sigma {band.sigma:.4f})"
    for trial in event.trials:
        chosen = " ← kept" if trial.cut == event.cut else ""
        found = f"development loss {trial.loss:.4f}, trained on {trial.documents:,} documents"
        yield f"trial of {words(trial.cut)}: {found}{chosen}"


def words(cut: Cut) -> str:
    """Return a cut as its configuration has it."""
    return f"low {cut.low:g}, high {cut.high:g}"
