"""What an attempt of a stage writes into its outcome file."""

from typing import ClassVar, Literal

import msgspec

from daemon.core.errors import FailureClass
from daemon.core.events.base import Artefact, Comparison, Count, Domain, Event, Loss, Origin, Sha256
from daemon.core.plans import Amount, Checkpoint, Cut, Document, Law, Span

InterruptReason = Literal["cancel", "preempt", "drain", "died", "hang"]


class StageEvent(Event, frozen=True):
    """Base of what an attempt of a stage writes into its outcome file."""

    origin: ClassVar[Origin] = "stage"
    run: str
    stage: str
    attempt: int


class StageStarted(StageEvent, frozen=True):
    """The first line of an attempt: the command that it carries out, and where it runs."""

    kind: ClassVar[str] = "stage.started"
    command: str
    host: str
    pid: int


class StageProgressed(StageEvent, frozen=True):
    """How far an attempt is; at most one in 5 s."""

    kind: ClassVar[str] = "stage.progressed"
    step: int
    steps: int
    metrics: dict[str, float] = {}


class CheckpointSaved(StageEvent, frozen=True):
    """A checkpoint from which a later attempt can go on."""

    kind: ClassVar[str] = "checkpoint.saved"
    step: int
    checkpoint: Checkpoint


class StageSucceeded(StageEvent, frozen=True):
    """The attempt did its work."""

    kind: ClassVar[str] = "stage.succeeded"
    seconds: float
    metrics: dict[str, float] = {}
    artefacts: tuple[Artefact, ...] = ()


class StageFailed(StageEvent, frozen=True):
    """The attempt ended with an error of a known class; at which step, and on which documents, where that is known."""

    kind: ClassVar[str] = "stage.failed"
    failure: FailureClass
    message: str
    step: Count | None = None
    documents: tuple[Document, ...] = ()


class StageInterrupted(StageEvent, frozen=True):
    """The attempt ended without finishing: stopped when asked, or its process died."""

    kind: ClassVar[str] = "stage.interrupted"
    reason: InterruptReason
    message: str = ""


class DataIngested(StageEvent, frozen=True):
    """An arrival was validated, counted exactly and tokenised into shards.

    `estimate` is what it was counted as before; nothing, as completed at the door, once it is withdrawn.
    `near_duplicates` are kept: they are told, not dropped.
    """

    kind: ClassVar[str] = "data.ingested"
    arrival: Count
    domain: Domain
    estimate: Amount
    amount: Amount
    duplicates: Count
    manifest: str
    sha256: Sha256
    near_duplicates: Count = 0


class DataRejected(StageEvent, frozen=True):
    """An arrival cannot be used; the run goes on without it."""

    kind: ClassVar[str] = "data.rejected"
    arrival: Count
    domain: Domain
    estimate: Amount
    reason: str
    message: str


class Lengths(msgspec.Struct, frozen=True, kw_only=True):
    """How long the documents of a domain are, in bytes, and what they are made of (shares of their bytes)."""

    documents: Count
    mean: float
    median: float
    longest: Count
    ascii: float
    whitespace: float
    digits: float


class ProbeMeasured(StageEvent, frozen=True):
    """The champion's loss on the new arrivals and on held-out past data, per domain; shift = new minus past.

    `shift_low` and `shift_high` are its 95 % interval over documents, `near_duplicates` the share of each domain's new
    documents that nearly are one seen before, `lengths` what the new documents are like. `law` is what the
    pipeline's past runs teach of the next one. `drift` are distances between the new documents and past ones, by how
    they were measured; `expected_gain` is what the learning curve of past runs expects of training on the new ones.
    """

    kind: ClassVar[str] = "probe.measured"
    new: dict[str, Loss]
    past: dict[str, Loss]
    shift: float | None = None
    shift_low: float | None = None
    shift_high: float | None = None
    near_duplicates: dict[str, float] = {}
    lengths: dict[str, Lengths] = {}
    law: Law | None = None
    drift: dict[str, float] = {}
    expected_gain: float | None = None


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """A cut that `curate` tried: what it keeps, and the loss on the development slice after a short training on it.

    Kept are documents and tokens without the slice; the loss is the median of the slice's documents'.
    """

    cut: Cut
    documents: Count
    tokens: Count
    loss: float


class Band(msgspec.Struct, frozen=True, kw_only=True):
    """The documents of a domain by their scores: mean, sigma and quantiles, and how many stay, from `low` to `high`.

    `counts` are those of a histogram over the event's `scale`, what lies beyond it in its outer bins.
    """

    documents: Count
    kept: Count
    mean: float
    sigma: float
    low: float
    high: float
    quantiles: dict[str, float] = {}
    counts: tuple[Count, ...] = ()


class DataCurated(StageEvent, frozen=True):
    """What the run trains on: the band of its data that the best cut keeps.

    `documents` and `tokens` are those that the run could train on, `kept` and `kept_tokens` those that it does.
    `rewritten` got another text from the policy's callable, `left_out` none. A document's score is its loss under the
    champion; `mean`, `sigma` and `quantiles` are of all scores, most of which lie within `scale`. Without a champion
    there are no scores and no cut, and everything is kept. `manifest` names the shards.
    """

    kind: ClassVar[str] = "data.curated"
    documents: Count
    tokens: Count
    kept: Count
    kept_tokens: Count
    manifest: str
    sha256: Sha256
    rewritten: Count = 0
    left_out: Count = 0
    mean: float | None = None
    sigma: float | None = None
    quantiles: dict[str, float] = {}
    cut: Cut | None = None
    trials: tuple[Trial, ...] = ()
    domains: dict[str, Band] = {}
    scale: tuple[float, float] | None = None


class ModelEvaluated(StageEvent, frozen=True):
    """The candidate against the champion on held-out documents of every domain."""

    kind: ClassVar[str] = "model.evaluated"
    domains: dict[str, Comparison]
    candidate: Checkpoint


class ModelPromoted(StageEvent, frozen=True):
    """The candidate's files are published: the champion from here on; `adopted_from` is where a foreign one lay."""

    kind: ClassVar[str] = "model.promoted"
    model_version: int
    path: str
    sha256: Sha256
    trunk: Checkpoint
    parent: int | None
    spans: tuple[Span, ...]
    losses: dict[str, float]
    adopted_from: str | None = None
