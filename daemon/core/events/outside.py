"""What the world tells: data, failures, live quality, and a person's requests."""

from datetime import datetime
from typing import ClassVar, Literal

from daemon.core.errors import FailureClass
from daemon.core.events.base import Count, Domain, Event, Origin, Position, Sha256, Text
from daemon.core.plans import Amount, Amounts, Span

Account = Literal["past", "champion", "set_aside"]
"""What champions were trained on, of them the present one alone, or what is set aside."""


class DataArrived(Event, frozen=True):
    """New data lies at `uri`; what the producer left out is completed at the door (tokens: an estimate)."""

    kind: ClassVar[str] = "data.arrived"
    origin: ClassVar[Origin] = "outside"
    uri: Text
    domain: Domain
    format: Literal["text", "jsonl", "parquet"] = "jsonl"
    bytes: Count | None = None
    sha256: Sha256 | None = None
    documents: Count | None = None
    tokens: Count | None = None


class DataWithdrawn(Event, frozen=True):
    """An arrival must not be used (again); its position, domain and amount are completed at the door.

    So is the `account` that it is in, unless it is pending or a candidate's: what champions were trained on, of
    them the present one alone, or what is set aside.
    """

    kind: ClassVar[str] = "data.withdrawn"
    origin: ClassVar[Origin] = "outside"
    arrival_source: Text
    arrival_id: Text
    arrival: Count | None = None
    domain: str | None = None
    amount: Amount | None = None
    account: Account | None = None
    reason: Text = ""


class FailureReported(Event, frozen=True):
    """Something outside saw a failure: a worker, a host, a slice of the model."""

    kind: ClassVar[str] = "failure.reported"
    origin: ClassVar[Origin] = "outside"
    failure: FailureClass
    run: Text | None = None
    host: Text | None = None
    worker: Text | None = None
    model_stage: Count | None = None
    evidence: Text = ""


class Reported(Event, frozen=True):
    """What a monitor measured on the live model."""

    origin: ClassVar[Origin] = "outside"
    metric: Text
    value: float
    window: Text = ""
    model_version: Count | None = None


class EvaluationReported(Reported, frozen=True):
    """Live quality, measured outside."""

    kind: ClassVar[str] = "evaluation.reported"


class LabelArrived(Reported, frozen=True):
    """Delayed labels gave a figure."""

    kind: ClassVar[str] = "label.arrived"


class DriftDetected(Reported, frozen=True):
    """A drift monitor fired."""

    kind: ClassVar[str] = "drift.detected"


Verb = Literal[
    "pause",
    "resume",
    "retrain",
    "train",
    "promote",
    "rollback",
    "cancel",
    "approve",
    "accept",
    "withdraw",
    "retry",
    "drop",
    "adopt",
    "align",
    "freeze",
    "thaw",
    "backfill",
    "reload",
]


class OperatorRequested(Event, frozen=True):
    """A person asked for something; `by` is stamped at the door, `spans` and `amounts` are completed there.

    `dead_letter` is the position of the dead letter that `retry` or `drop` is about; `model` the folder that
    `adopt` takes, and `trained_on` whether it has seen what is pending now. `positions`
    are where `align` lets partitions be read on; `decision` is the position of the decision that `approve` is
    about. `since` and `until` bound, by when they were recorded, the arrivals that `backfill` makes pending again.
    `accounts` are the amounts by the accounts that they leave for that. `needs_restart` are the keys of the
    configuration file that `reload` could not take. Both are completed at the door too.
    """

    kind: ClassVar[str] = "operator.requested"
    origin: ClassVar[Origin] = "operator"
    verb: Verb
    run: Text | None = None
    reason: Text = ""
    by: Text = ""
    spans: tuple[Span, ...] = ()
    amounts: Amounts = {}
    dead_letter: Count | None = None
    model: Text | None = None
    trained_on: Literal["pending", "nothing"] = "pending"
    positions: tuple[Position, ...] = ()
    decision: Count | None = None
    since: datetime | None = None
    until: datetime | None = None
    accounts: dict[Account, Amounts] = {}
    needs_restart: tuple[str, ...] = ()
