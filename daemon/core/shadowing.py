"""How policies in shadow are asked and noted: nothing that acts is shown anything of them."""

from typing import Final

from msgspec.structs import replace

from daemon.core.commands import StartRun
from daemon.core.decisions import Decision
from daemon.core.drafts import draft
from daemon.core.events import (
    AnyEvent,
    CheckpointSaved,
    DataArrived,
    DataIngested,
    DataRejected,
    DriftDetected,
    EvaluationReported,
    LabelArrived,
    StageProgressed,
    StageStarted,
)
from daemon.core.state import Pipeline, stands

FREQUENT: Final = (
    DataArrived,
    DataIngested,
    DataRejected,
    StageStarted,
    StageProgressed,
    CheckpointSaved,
    EvaluationReported,
    LabelArrived,
    DriftDetected,
)
"""Facts that may come in any number while nothing changes for a policy: after them it is not noted again."""


def hides(pipeline: Pipeline) -> bool:
    """Return whether there is a policy in shadow."""
    if pipeline.settings is not None:
        for policy in pipeline.settings.policies:
            if policy.shadow:
                return True
    return False


def acting(pipeline: Pipeline) -> Pipeline:
    """Return the pipeline without what policies in shadow said: whoever acts is shown nothing of it."""
    policies = pipeline.settings.policies if pipeline.settings is not None else ()
    hidden = tuple(f"{policy.name}:" for policy in policies if policy.shadow)
    return replace(
        pipeline,
        timers={key: at for key, at in pipeline.timers.items() if not key.startswith(hidden)},
        fired={key: at for key, at in pipeline.fired.items() if not key.startswith(hidden)},
        verdicts={name: each for name, each in pipeline.verdicts.items() if f"{name}:" not in hidden},
        shadows={},
    )


def known(pipeline: Pipeline, policy: str, seen: Pipeline, decision: Decision, event: AnyEvent) -> bool:
    """Return whether a policy in shadow has said just this, so that it is not noted again; it `seen` its view.

    A start over new data is another one, and so is what is said of another run, or of another attempt's end.
    """
    if not stands(pipeline, policy, decision.verdict, decision.wakes):
        return False
    if not decision.commands:
        return True
    if not isinstance(event, FREQUENT):
        return False
    if starts(decision):
        return not seen.pending
    run = pipeline.active
    return run is None or pipeline.verdicts[policy].position > run.started_position


def obstacle(pipeline: Pipeline, seen: Pipeline, decision: Decision, position: int) -> str | None:
    """Return what would have kept a start from becoming a run, had the policy acted."""
    intent = next((command.intent for command in decision.commands if isinstance(command, StartRun)), None)
    if intent is None:
        return None
    if pipeline.paused is not None:
        return f"paused by {pipeline.paused}"
    plan = draft(seen, intent, position)
    return f"void: {plan}" if isinstance(plan, str) else None


def starts(decision: Decision) -> bool:
    """Return whether it wishes to start a run."""
    return any(isinstance(command, StartRun) for command in decision.commands)
