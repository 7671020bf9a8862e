"""What each failure class calls for, as a value: the one table that the policy decides by and its page quotes.

Gathered from what large training systems do: ByteRobust (arXiv 2509.16293), Megatron's rerun of a step that gave no
number, PaLM's way past a loss spike (arXiv 2204.02311, section 5.1), NVRx's single confirmation of a fault.
"""

from typing import Final, Literal

import msgspec

from daemon.core.errors import FailureClass

Measure = Literal["again", "confirm", "step_back", "spare", "quarantine", "split", "older", "stop"]
"""again: as before, as long as the budget lasts · confirm: once more, to see whether it comes again · step_back: from
an older checkpoint, without the batches around the step · quarantine: without the documents named · spare: quarantine
where documents are named, else step_back · split: the batch in twice as many parts · older: from a checkpoint before
the bad one, then from the start · stop: no retry."""


class Answer(msgspec.Struct, frozen=True):
    """What follows a failure of the train stage, the `first` time and when it is `repeated`; of others `elsewhere`.

    A retry that changes nothing waits, unless `at_once` and the first without progress.
    """

    first: Measure
    repeated: Measure
    elsewhere: Measure
    at_once: bool = False


ANSWERS: Final[dict[FailureClass, Answer]] = {
    "transient": Answer("again", "again", "again"),
    "disk_full": Answer("again", "again", "again"),
    "straggler": Answer("again", "again", "again"),
    "worker_lost": Answer("again", "again", "again", at_once=True),
    "model_stage_lost": Answer("again", "again", "again", at_once=True),
    "preempted": Answer("again", "again", "again", at_once=True),
    "hang": Answer("again", "again", "again", at_once=True),
    "loss_spike": Answer("confirm", "step_back", "confirm", at_once=True),
    "not_finite": Answer("confirm", "spare", "confirm", at_once=True),
    "bad_sample": Answer("confirm", "quarantine", "stop", at_once=True),
    "out_of_memory": Answer("split", "split", "again"),
    "bad_checkpoint": Answer("confirm", "older", "confirm"),
    "user_error": Answer("stop", "stop", "stop"),
    "time_limit": Answer("stop", "stop", "stop"),
}
UNKNOWN: Final = Answer("again", "again", "again")
LOST: Final = frozenset({"worker_lost", "model_stage_lost", "hang"})
"""Classes that, reported of an attempt at work, end it: what they speak of does not come back by itself."""
