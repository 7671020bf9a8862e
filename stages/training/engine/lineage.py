"""Which checkpoints an attempt may go on from: those that the remedies in force would have led to themselves."""

from msgspec import UNSET

from daemon.core.plans import NO_REMEDY, Remedy, Span
from stages.training.engine.checkpoint import Saved


def is_ancestor(saved: Saved, remedy: Remedy) -> bool:
    """Return whether a training with this remedy goes on from a checkpoint that was made with another, or the same.

    Where they differ it does from one at or before the step `before`, up to which the same batches were left out. How
    the arithmetic is done (`accumulate`) does not matter.
    """
    made = NO_REMEDY if saved.remedy is UNSET else saved.remedy
    if (made.skip, made.before, made.without) == (remedy.skip, remedy.before, remedy.without):
        return True
    if remedy.before is None or saved.step > remedy.before:
        return False
    return _upto(made.skip, saved.step) == _upto(remedy.skip, saved.step)


def is_left_out(remedy: Remedy, step: int) -> bool:
    """Return whether a step's batch is left out."""
    return any(span.after < step <= span.upto for span in remedy.skip)


def left_out(remedy: Remedy, step: int) -> int:
    """Return how many of the first `step` batches are left out."""
    return sum(span.upto - span.after for span in _upto(remedy.skip, step))


def _upto(spans: tuple[Span, ...], step: int) -> tuple[Span, ...]:
    return tuple(Span(after=each.after, upto=min(each.upto, step)) for each in spans if each.after < step)
