"""A cut tried: a short training on what it keeps, by the engine that trains the run, judged on a development slice."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch

from daemon.core.events import AnyEvent
from daemon.core.plans import NO_REMEDY, Plan, Replaying
from stages.base import Context
from stages.run_folder import Shard, Specification
from stages.train import train
from stages.training.curating.bands import Bools, Floats
from stages.training.curating.texts import Texts
from stages.training.data.identity import is_below
from stages.training.data.shards import Part, Tokens
from stages.training.engine.team import Alone
from stages.training.models.base import Adapter

EXCERPT_TOKENS = 2048
MOST_DOCUMENTS = 2048
"""The slice is measured on those with the least hashes, each up to so many tokens; all of it is left out of trials."""


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """The development documents, each of language after an end token, and what their losses are counted per."""

    documents: list[Tokens]
    sizes: Floats


def developing(part: Part, share: float) -> Bools:
    """Return which documents are of the development slice: by their own hash, whatever else there is.

    By other bits of it than those by which ingest holds documents out.
    """
    return is_below(np.ascontiguousarray(part.hashes).view("<u8")[:, 1], share)


def take_slice(parts: Sequence[Part], chosen: Sequence[Bools], texts: Texts) -> Slice:
    """Return what is measured of the development slice."""
    names = sorted(
        (part.hashes[index].tobytes(), at, index)
        for at, (part, mine) in enumerate(zip(parts, chosen, strict=True))
        for index in np.flatnonzero(mine).tolist()
    )[:MOST_DOCUMENTS]
    documents, sizes = [], []
    for _, at, index in names:
        document = parts[at].document(index)
        if parts[at].manifest.tokenizer is None:
            documents.append(document)
            sizes.append(1.0)
            continue
        end = np.array([parts[at].manifest.end], dtype=document.dtype)
        documents.append(np.concatenate((end, document[:EXCERPT_TOKENS])))
        whole = float(texts.sizes([document])[0])
        sizes.append(whole * min(1.0, EXCERPT_TOKENS / len(document)))
    return Slice(documents=documents, sizes=np.array(sizes))


class Trying(Context):
    """The context of a trial: a folder of its own inside the attempt's, and the attempt's own life."""

    def __init__(
        self, outer: Context, specification: Specification, folder: Path, tell: Callable[[float], None]
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.specification = specification
        self.folder = folder
        self._curve: list[bytes] = []
        self._outer = outer
        self._tell = tell

    def emit(self, event: AnyEvent) -> None:
        """Tell nobody: a trial's checkpoints are not the run's."""

    def beat(self, step: int, steps: int, metrics: dict[str, float] | None = None) -> None:
        """Beat for the attempt. Raises Stopped and StageError (time_limit) as its own beat does."""
        self._tell(step / steps)

    def live(self) -> None:
        """Say that the attempt lives."""
        self._outer.live()

    def obey(self) -> None:
        """Raise what the attempt's own raises."""
        self._outer.obey()


def trial_plan(plan: Plan) -> Plan:
    """Return the plan of a trial: the share `trial` of the run's budget, from its start, without replay, alone.

    A loss that rises and stays is no failure of a trial: it is what the trial finds.
    """
    training = plan.training
    share = plan.curation.trial if plan.curation else 1.0
    tokens = max(training.batch * training.context, round(training.tokens * share))
    engine = msgspec.structs.replace(training.engine, processes=1, evaluations=0)
    short = msgspec.structs.replace(training, tokens=tokens, replay=0.0, replaying=Replaying(), engine=engine)
    limits = msgspec.structs.replace(plan.limits, spike_factor=None)
    return msgspec.structs.replace(plan, training=short, limits=limits, curation=None, prediction=None)


def train_on(context: Context, name: str, shards: Sequence[Shard], tell: Callable[[float], None]) -> None:
    """Train on the shards in the trial's folder; goes on where the same trial of an earlier attempt was stopped.

    Raises as `train` does.
    """
    outer = context.specification
    specification = msgspec.structs.replace(
        outer,
        plan=trial_plan(outer.plan),
        new=tuple(shards),
        past=(),
        done={},
        resume_from=tuple(str(Path(folder) / "trials" / name) for folder in outer.resume_from),
        remedy=msgspec.structs.replace(NO_REMEDY, accumulate=outer.remedy.accumulate),
    )
    train(Trying(context, specification, context.folder / "trials" / name, tell), Alone())


def judge(
    adapter: Adapter, folder: Path, measured: Slice, device: torch.device, *, context: int, beat: Callable[[], None]
) -> Floats:
    """Return the loss of a trial's candidate on each document of the slice."""
    model = adapter.load(folder / "candidate").to(device)
    return adapter.document_nats(model, measured.documents, context=context, beat=beat) / measured.sizes


def clear(folder: Path) -> None:
    """Take a finished trial's files away; what it found is kept elsewhere."""
    shutil.rmtree(folder, ignore_errors=True)
