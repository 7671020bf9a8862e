"""Every error that rewarm raises, in one tree.

RewarmError
├── ConfigurationError      the configuration file or an environment override is wrong
├── InputError              an input cannot be accepted; it becomes a dead letter with `reason`
├── JournalError
│   ├── JournalBusy         another daemon holds the journal
│   ├── JournalFenced       a newer epoch owns the journal; this writer must stop
│   ├── JournalFull         the disk (or the file's limit) is full; nothing of the batch was stored
│   ├── JournalCorrupt      the file or one of its records cannot be read
│   ├── JournalTooNew       written by a newer rewarm
│   ├── StaleCursor         an input cursor moved meanwhile
│   └── DuplicateRecord     (source, id) is already recorded
├── EventError              a stored or received event does not fit its class
├── BrokerError             a Kafka cluster cannot be reached, or does not do what was asked
├── StageError              a stage cannot go on; carries the failure class
└── WorkerError             the worker process cannot be reached or started
"""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from daemon.core.plans import Document

FailureClass = Literal[
    "transient",
    "worker_lost",
    "model_stage_lost",
    "preempted",
    "hang",
    "straggler",
    "loss_spike",
    "not_finite",
    "out_of_memory",
    "bad_sample",
    "bad_checkpoint",
    "disk_full",
    "time_limit",
    "user_error",
]


class RewarmError(Exception):
    """Base of all errors whose message is meant for a person."""


class ConfigurationError(RewarmError):
    """The configuration is wrong; the message names file, key, value and the known choices."""


class InputError(RewarmError):
    """An input cannot be accepted; `reason` is a stable word for counting, the message is for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class JournalError(RewarmError):
    """The journal cannot do what was asked."""


class JournalBusy(JournalError):
    """Another daemon writes this journal; the message names host and pid of the holder."""


class JournalFenced(JournalError):
    """A newer epoch owns the journal: this process is no longer its writer and must stop."""


class JournalFull(JournalError):
    """There is no room to append; the transaction was rolled back as a whole."""


class JournalCorrupt(JournalError):
    """The journal's file or one of its records cannot be read."""


class JournalTooNew(JournalError):
    """The journal was written by a newer version of rewarm."""


class StaleCursor(JournalError):
    """An input cursor did not stand where the writer believed; read it again."""


class DuplicateRecord(JournalError):
    """A record with this (source, id) is in the journal already."""


class EventError(RewarmError):
    """An event's JSON does not fit the class of its kind and version."""


class BrokerError(RewarmError):
    """A Kafka cluster cannot be reached or used; the message names it, says why and holds no secret."""


class StageError(RewarmError):
    """A stage cannot go on; `failure` is one of the classes that recovery policies know.

    `step` and `documents` are where it happened, where that is known.
    """

    def __init__(
        self,
        failure: FailureClass,
        message: str,
        *,
        step: int | None = None,
        documents: "tuple[Document, ...]" = (),
    ) -> None:
        super().__init__(message)
        self.failure: FailureClass = failure
        self.step = step
        self.documents = documents


class WorkerError(RewarmError):
    """The worker process cannot be reached or started."""
