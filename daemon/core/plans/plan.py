"""What a run will do: from where, on which data, for how long, how."""

from datetime import datetime
from typing import Literal

import msgspec

from daemon.core.plans.amounts import Amounts, Span
from daemon.core.plans.curation import Curation
from daemon.core.plans.law import Prediction
from daemon.core.plans.schedules import TRUNKS, Schedule, course, rate

IntentKind = Literal["base", "increment", "retrain", "adopt"]
ReplayChoice = Literal["uniform", "per_domain", "loss_increase"]
StartFrom = Literal["scratch", "base", "champion", "folder"]


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A folder of weights (and optimiser state) with the sha256 of its manifest."""

    path: str
    sha256: str


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a run in which the replayed share is `share`; it lasts until the share `until` of the steps."""

    until: float
    share: float


class Replaying(msgspec.Struct, frozen=True, kw_only=True):
    """How the replayed share is spread over the run and over the past.

    Without `phases` the share is the same in every batch; with them `Training.replay` is their mean. `choice` says
    by what the past domains were weighed, `weights` how much each gets; without any it is as their tokens fall.
    """

    phases: tuple[Phase, ...] = ()
    choice: ReplayChoice = "uniform"
    weights: dict[str, float] = {}


class Optimiser(msgspec.Struct, frozen=True, kw_only=True):
    """AdamW; the defaults are those of Ibrahim et al. 2024 (arXiv 2403.08763).

    `skip_sigma`: a step whose loss or gradient norm lies so many standard deviations above the last ones is left out
    (OLMo 2, arXiv 2501.00656); None: never. `average`: the decay of an exponential moving average of the weights,
    which then is the candidate; None: the candidate is the last step.
    """

    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip: float = 1.0
    skip_sigma: float | None = None
    average: float | None = None


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """How the arithmetic is done; what is learned depends on it by rounding alone.

    `precision` auto: bfloat16 on CUDA, float32 on a processor. `accumulate`: the parts in which a batch is computed.
    `recompute`: activations are computed again instead of kept. `evaluations`: how often held-out documents are
    measured on the way. `processes`: how many share a batch, by `sharding`.
    """

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    accumulate: int = 1
    recompute: bool = False
    compile: bool = False
    evaluations: int = 0
    processes: int = 1
    sharding: Literal["ddp", "fsdp2"] = "ddp"


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """How a train stage spends its budget: tokens in all, the share of them that replays the past.

    `batch` is of sequences of `context` tokens; of a model that is not of language, of examples, each one token.
    `optimiser` is what becomes of the state behind the start, `adamw` how it goes on.
    """

    tokens: int
    batch: int
    context: int
    replay: float
    schedule: Schedule
    optimiser: Literal["keep", "reset"]
    seed: int
    replaying: Replaying = Replaying()
    adamw: Optimiser = Optimiser()
    engine: Engine = Engine()


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What bounds every stage of the run, in seconds; a stage keeps them by itself, with nobody asking.

    `spike_factor`: a training fails as `loss_spike` where the median loss of `spike_steps` steps lies so many times
    above the lowest such median; None: never.
    """

    time_limit: float = 86_400.0
    heartbeat: float = 300.0
    checkpoint_every: float = 60.0
    spike_factor: float | None = None
    spike_steps: int = 32


class TokenizerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How text becomes tokens: by its bytes, as a tokenizer.json says, or as one trained on the first data does."""

    kind: Literal["bytes", "file", "train"] = "bytes"
    path: str | None = None
    vocabulary: int | None = None


class Sizes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is different from the preset."""

    width: int | None = None
    layers: int | None = None
    heads: int | None = None
    key_value_heads: int | None = None
    hidden: int | None = None
    tied: bool | None = None


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which model a pipeline trains when it starts from scratch.

    `llama`: the built-in decoder of a preset's sizes. `hf`: the Hugging Face causal language model in the folder
    `path`; from scratch means from its weights. `module`: what `factory` ("package.module:function") returns.
    """

    kind: str = "llama"
    preset: str = "nano"
    sizes: Sizes = Sizes()
    tokenizer: TokenizerSettings = TokenizerSettings()
    path: str | None = None
    factory: str | None = None

    @property
    def unit(self) -> str:
        """What losses of this model are counted in, for people."""
        return "loss per example" if self.kind == "module" else "nats per byte"


class DataSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How arrivals are read: the fields (of JSONL and Parquet) with the text and with what documents belong together.

    Documents of one group are held out together or not at all; `held_out` is about their share.
    """

    text: str = "text"
    group: str = "group"
    held_out: float = 0.05


class Adoption(msgspec.Struct, frozen=True, kw_only=True):
    """A model that was trained elsewhere: its folder (absolute), and the arrivals that it has seen."""

    folder: str
    spans: tuple[Span, ...] = ()
    amounts: Amounts = {}


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A key that one start has for itself: for `seconds` after it nothing else with the same key starts."""

    key: str
    seconds: float


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy wishes to start; `training.tokens`, the seed and `start` are resolved when the run starts.

    `epochs` is how often the run sees its new data (a retrain: all its data), `max_tokens` the most it may cost.
    `adoption` is what a run of kind `adopt` takes in. A run that only looks is measured by its probe, and trains if
    its policy then says so. `curation`: train on the part of the past that the stage `curate` keeps. `asked`: a person
    asked for it, or approved it, so that no guard holds it back.
    """

    kind: IntentKind
    start: StartFrom
    training: Training
    epochs: float = 1.0
    max_tokens: int | None = None
    limits: Limits = Limits()
    priority: int = 0
    expires_at: datetime | None = None
    adoption: Adoption | None = None
    look: bool = False
    claim: Claim | None = None
    curation: Curation | None = None
    asked: bool = False


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """Where the weights come from: nothing, the checkpoint of a champion's version, or a folder from elsewhere."""

    kind: StartFrom
    version: int | None = None
    checkpoint: Checkpoint | None = None
    folder: str | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run's stages need to know, fixed by stored decisions."""

    kind: IntentKind
    start: Start
    parent: int | None
    spans: tuple[Span, ...]
    new: Amounts
    past: Amounts
    model: ModelSettings
    stages: tuple[str, ...]
    training: Training
    limits: Limits
    rule: str = ""
    data: DataSettings = DataSettings()
    prediction: Prediction | None = None
    curation: Curation | None = None


def budget(new_tokens: int, replay: float, epochs: float, most: int | None) -> int:
    """Return the tokens of a run whose every batch replays the share `replay` (arXiv 2403.08763, section 4.2).

    New tokens are seen `epochs` times and replay comes on top: total = new x epochs / (1 - replay).
    """
    total = max(1, round(new_tokens * epochs / max(1e-9, 1 - replay)))
    return total if most is None else min(total, most)


def steps(training: Training) -> int:
    """Return the optimiser steps of a budget: at least one."""
    return max(1, training.tokens // (training.batch * training.context))


def learning_rate(training: Training, step: int) -> float:
    """Return the rate for optimiser step `step` of 1..`steps(training)`."""
    return rate(course(training.schedule, steps(training), training.batch * training.context), step)


def trunk_step(training: Training) -> int:
    """Return the step after which the trunk is saved: before the final anneal, else the last one."""
    total = steps(training)
    if training.schedule.kind not in TRUNKS:
        return total
    return course(training.schedule, total, training.batch * training.context).annealing


def replay_share(training: Training, step: int) -> float:
    """Return the share of batch `step` of 1..`steps(training)` that replays the past."""
    at = (step - 1) / steps(training)
    for phase in training.replaying.phases:
        if at < phase.until:
            return phase.share
    return training.replaying.phases[-1].share if training.replaying.phases else training.replay
