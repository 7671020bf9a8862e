"""Whom a report of a failure is about: the attempt that is at work, or nothing that still is."""

import msgspec

from daemon.core.events import FailureReported
from daemon.core.state import Order, Pipeline, Run


class Stray(msgspec.Struct, frozen=True, kw_only=True):
    """Why a report concerns nothing that is at work: a stable word, and a sentence."""

    word: str
    reason: str


def at_work(pipeline: Pipeline, report: FailureReported) -> tuple[Run, Order] | Stray:
    """Return the attempt that a report is about, with its run, or why it is about none that is at work.

    What a report does not name (run, host, worker) it says of whatever is at work.
    """
    run = pipeline.active
    if report.run and (run is None or run.run != report.run):
        return _other_run(pipeline, report.run)
    if run is None:
        return Stray(word="failure_of_no_run", reason="No run is active: there is nothing to recover.")
    order = run.order
    if order is None:
        attempt = f"Attempt {run.attempts.get(run.stage, 1)} of stage {run.stage}"
        return Stray(
            word="failure_known",
            reason=f"{attempt} has ended already ({run.failures.last}); its recovery is under way.",
        )
    attempt = f"Attempt {order.attempt} of stage {order.stage}"
    if run.stop is not None:
        return Stray(word="failure_of_stopped_run", reason=f"Run {run.run} is being stopped already ({run.stop}).")
    if not order.started:
        return Stray(word="failure_before_start", reason=f"{attempt} has not begun: nothing of it can be lost.")
    if not _is_there(order, report):
        told = " ".join(each for each in (report.host, report.worker) if each)
        return Stray(
            word="failure_elsewhere", reason=f"{attempt} is process {order.pid} on host {order.host}, not {told}."
        )
    if order.lost:
        return Stray(
            word="failure_known", reason=f"{attempt} is being ended already: {order.lost} was reported before."
        )
    return run, order


def _other_run(pipeline: Pipeline, named: str) -> Stray:
    for state, waiting in (("held", pipeline.held), ("preempted", pipeline.yielded)):
        if waiting is not None and waiting.run == named:
            return Stray(word="failure_of_waiting_run", reason=f"Run {named} is {state}: nothing of it is at work.")
    last = pipeline.last
    if last is not None and last.run == named:
        return Stray(word="failure_of_ended_run", reason=f"Run {named} has ended already ({last.outcome}).")
    active = f"active is {pipeline.active.run}" if pipeline.active is not None else "none is active"
    return Stray(
        word="failure_of_unknown_run",
        reason=f"Run {named} is not at work ({active}): it ended earlier, or never was.",
    )


def _is_there(order: Order, report: FailureReported) -> bool:
    """Return whether the host and the worker that a report names are the attempt's."""
    workers = (f"{order.pid}", f"{order.host}/{order.pid}")
    return (not report.host or report.host == order.host) and (not report.worker or report.worker in workers)
