"""Facts and decisions as they are stored: past tense, frozen, versioned.

An event is one class in this folder and one line in `AnyEvent`; the type checker then asks for its case in
`evolve`. `origin` says who may tell it: `outside` (any producer), `operator` (a person), `stage`, or `daemon`.
"""

from datetime import datetime
from typing import get_args

import msgspec

from daemon.core.commands import AnyCommand
from daemon.core.events.base import (
    Artefact,
    Carrier,
    CatchUp,
    Comparison,
    Event,
    Loss,
    Numbers,
    Origin,
    PipelineSettings,
    PolicySettings,
    Position,
    Scalar,
    ScheduleSettings,
)
from daemon.core.events.inside import (
    ConfigurationChanged,
    DaemonStarted,
    DaemonStopped,
    DecisionMade,
    FilesExpired,
    InputRejected,
    ModelRejected,
    ModelRolledBack,
    PlanFixed,
    PositionSet,
    RunCancelled,
    RunFailed,
    RunHeld,
    RunPostponed,
    RunPreempted,
    RunResumed,
    RunStarted,
    RunSucceeded,
    ScheduleFired,
    SourceDegraded,
    SourceRecovered,
    TimerFired,
)
from daemon.core.events.outside import (
    DataArrived,
    DataWithdrawn,
    DriftDetected,
    EvaluationReported,
    FailureReported,
    LabelArrived,
    OperatorRequested,
    Reported,
    Verb,
)
from daemon.core.events.stages import (
    Band,
    CheckpointSaved,
    DataCurated,
    DataIngested,
    DataRejected,
    InterruptReason,
    Lengths,
    ModelEvaluated,
    ModelPromoted,
    ProbeMeasured,
    StageEvent,
    StageFailed,
    StageInterrupted,
    StageProgressed,
    StageStarted,
    StageSucceeded,
    Trial,
)

__all__ = [
    "EVENTS",
    "TERMINAL",
    "AnyEvent",
    "Artefact",
    "Band",
    "Carrier",
    "CatchUp",
    "CheckpointSaved",
    "Comparison",
    "ConfigurationChanged",
    "DaemonStarted",
    "DaemonStopped",
    "DataArrived",
    "DataCurated",
    "DataIngested",
    "DataRejected",
    "DataWithdrawn",
    "DecisionMade",
    "DriftDetected",
    "EvaluationReported",
    "Event",
    "FailureReported",
    "FilesExpired",
    "InputRejected",
    "InterruptReason",
    "LabelArrived",
    "Lengths",
    "Loss",
    "ModelEvaluated",
    "ModelPromoted",
    "ModelRejected",
    "ModelRolledBack",
    "Numbers",
    "OperatorRequested",
    "Origin",
    "PipelineSettings",
    "PlanFixed",
    "PolicySettings",
    "Position",
    "PositionSet",
    "ProbeMeasured",
    "Record",
    "Reported",
    "RunCancelled",
    "RunFailed",
    "RunHeld",
    "RunPostponed",
    "RunPreempted",
    "RunResumed",
    "RunStarted",
    "RunSucceeded",
    "Scalar",
    "ScheduleFired",
    "ScheduleSettings",
    "SourceDegraded",
    "SourceRecovered",
    "StageEvent",
    "StageFailed",
    "StageInterrupted",
    "StageProgressed",
    "StageStarted",
    "StageSucceeded",
    "TimerFired",
    "Trial",
    "Verb",
    "run_of",
]

AnyEvent = (
    DataArrived
    | DataWithdrawn
    | FailureReported
    | EvaluationReported
    | LabelArrived
    | DriftDetected
    | OperatorRequested
    | TimerFired
    | ScheduleFired
    | DaemonStarted
    | DaemonStopped
    | ConfigurationChanged
    | SourceDegraded
    | SourceRecovered
    | PositionSet
    | InputRejected
    | FilesExpired
    | DecisionMade
    | RunStarted
    | RunResumed
    | PlanFixed
    | RunHeld
    | RunPreempted
    | RunPostponed
    | RunSucceeded
    | RunFailed
    | RunCancelled
    | ModelRejected
    | ModelRolledBack
    | StageStarted
    | StageProgressed
    | CheckpointSaved
    | StageSucceeded
    | StageFailed
    | StageInterrupted
    | DataIngested
    | DataRejected
    | DataCurated
    | ProbeMeasured
    | ModelEvaluated
    | ModelPromoted
)

EVENTS: dict[str, type[AnyEvent]] = {cls.kind: cls for cls in get_args(AnyEvent)}
TERMINAL = (StageSucceeded, StageFailed, StageInterrupted)


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event in the journal's order. `recorded_at` is the only "now" there is; `time` is the producer's."""

    position: int
    recorded_at: datetime
    source: str
    id: str
    event: AnyEvent
    pipeline: str | None = None
    cause: int | None = None
    time: datetime | None = None
    text: bytes | None = None
    carrier: Carrier | None = None


def run_of(told: AnyEvent | AnyCommand) -> str | None:
    """Return the run that an event or a command is about, if any."""
    return getattr(told, "run", None)
