"""One curation: score, try the cuts, write what the best one keeps, and tell."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path

import msgspec
import numpy as np
from torch import nn

from daemon.core.errors import StageError
from daemon.core.events import Artefact, Band, DataCurated, Trial
from daemon.core.plans import Curation, Cut, Document
from daemon.files import write_atomically
from stages.base import Context, Result
from stages.run_folder import Shard
from stages.training.curating import bands, trying
from stages.training.curating.arrived import Arrived, by_domain, cut_domains, keeps, told
from stages.training.curating.bands import Bools, Bounds, Floats
from stages.training.curating.kept import KeptShard, artefact_of, keep, kept_shard
from stages.training.curating.rewriting import Rewriting
from stages.training.curating.scoring import score
from stages.training.curating.texts import Texts
from stages.training.curating.writing import Writer, Written, name_of
from stages.training.data.shards import Part
from stages.training.data.tokenizers import tokenizer_of
from stages.training.engine.device import prepare
from stages.training.files import digest
from stages.training.judging.measuring import load_recorded
from stages.training.models import adapter_of

SCORES = "scores.json"
WHOLE = 1000
"""Into how many parts a phase is cut where progress is told."""
logger = logging.getLogger("rewarm.stage")


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """scores.json: how the scores lie, in `unit`, what each cut would keep of each domain, and what its trial found."""

    format: int = 1
    unit: str
    mean: float
    sigma: float
    quantiles: dict[str, float]
    scale: tuple[float, float]
    by: str
    cuts: list[dict[str, Band]]
    trials: tuple[Trial, ...]
    chosen: int


class Round:
    """One curation."""

    def __init__(self, context: Context, curation: Curation) -> None:
        specification = context.specification
        self.context = context
        self.curation = curation
        self.training = specification.plan.training
        self.device = prepare(specification.threads)
        self.adapter = adapter_of(context)
        self.texts = Texts(tokenizer_of(context) if self.adapter.windows else None)
        self.key = _key(context)
        self.folders = [context.folder, *map(Path, specification.resume_from)]

    def run(self) -> Result:
        """Score, try, write and tell."""
        context = self.context
        arrived = self.score()
        if not arrived:
            raise StageError("bad_sample", "There is nothing to train on: every arrival is empty or left out.")
        cuts = [cut_domains(arrived, cut, self.curation.by) for cut in self.curation.cuts]
        trials = self.try_cuts(arrived, cuts) if len(cuts) > 1 else ()
        chosen = min(range(len(trials)), key=lambda at: trials[at].loss) if trials else 0
        written, shards = self.write(arrived, cuts[chosen])
        documents, tokens = sum(each.documents for each in written), sum(each.tokens for each in written)
        self.check(documents, tokens, self.curation.cuts[chosen])
        artefacts = (keep(context, shards), self.distribution(arrived, cuts, trials, chosen))
        whole = np.concatenate(list(by_domain(arrived).values()))
        event = DataCurated(
            **context.names,
            documents=len(whole),
            tokens=sum(each.part.manifest.train_tokens for each in arrived),
            kept=documents,
            kept_tokens=tokens,
            rewritten=sum(each.rewritten for each in written),
            left_out=sum(each.left_out for each in written),
            mean=bands.rounded(whole.mean()),
            sigma=bands.rounded(whole.std()),
            quantiles=bands.quantiles(whole),
            cut=self.curation.cuts[chosen],
            trials=trials,
            domains=told(arrived, cuts[chosen]),
            scale=bands.scale(whole),
            manifest=artefacts[0].path,
            sha256=artefacts[0].sha256,
        )
        context.emit(event)
        logger.info("Data curated.", extra={**context.names, "kept": documents, "of": len(whole), "cut": chosen})
        metrics = {f"quantile_{share}": value for share, value in event.quantiles.items()}
        return Result(metrics={**metrics, "mean": event.mean or 0.0, "sigma": event.sigma or 0.0}, artefacts=artefacts)

    def score(self) -> list[Arrived]:
        """Return every arrival's documents with their scores; those of an earlier attempt are not measured again."""
        context, specification = self.context, self.context.specification
        shards = (*specification.past, *specification.new)
        parts = [Part(context.resolve(shard.manifest), "train", shard.position) for shard in shards]
        found = []
        for shard, part in zip(shards, parts, strict=True):
            without = np.zeros(len(part), dtype=bool)
            gone = [each.number for each in specification.remedy.without if each.arrival == shard.position]
            without[[number for number in gone if number < len(part)]] = True
            if not without.all():  # nor is it empty
                scores = self.scored(part, without, sum(map(len, parts[: parts.index(part)])), sum(map(len, parts)))
                developing = trying.developing(part, self.curation.development) & ~without
                found.append(Arrived(shard=shard, part=part, developing=developing, scores=scores))
        return found

    @cached_property
    def champion(self) -> nn.Module:
        """The model that scores."""
        champion = self.context.specification.champion
        if champion is None:
            raise RuntimeError("there is a champion before anything is scored")
        return load_recorded(self.context, self.adapter, champion.model, self.device)

    def scored(self, part: Part, without: Bools, before: int, total: int) -> Floats:
        """Return an arrival's scores, measured or found."""
        name = f"scores-{part.arrival}.f8"
        known = self.known(name)
        if known is None:
            scores = score(
                self.adapter,
                self.champion,
                part,
                self.texts,
                without=without,
                context=self.training.context,
                beat=lambda at: self.tell(0, (before + at) / total),
            )
            known = scores.astype("<f8").tobytes()
            self.save(name, known)
        return np.frombuffer(known, dtype="<f8")

    def try_cuts(self, arrived: Sequence[Arrived], cuts: Sequence[dict[str, Bounds]]) -> tuple[Trial, ...]:
        """Return what every cut's trial found; one that an earlier attempt has finished is not trained again."""
        measured = trying.take_slice([each.part for each in arrived], [each.developing for each in arrived], self.texts)
        if not measured.documents:
            message = (
                f"None of {sum(len(each.part) for each in arrived)} documents falls into the development slice (share "
                f"{self.curation.development:g}), so no cut can be judged: raise `development`, or give one cut."
            )
            raise StageError("user_error", message)
        trials = []
        for number, cut in enumerate(cuts):
            name = f"trial-{number}.json"
            known = self.known(name)
            if known is None:
                known = msgspec.json.encode(self.try_cut(arrived, cut, number, measured))
                self.save(name, known)
            trials.append(msgspec.json.decode(known, type=Trial))
            self.tell(number + 2, 0.0)
        return tuple(trials)

    def try_cut(self, arrived: Sequence[Arrived], cut: dict[str, Bounds], number: int, measured: trying.Slice) -> Trial:
        """Train on what a cut keeps of the documents outside of the slice, and measure the slice."""
        folder = self.context.folder / "trials" / str(number)
        writer, written, shards = Writer(self.texts), [], []
        for each in arrived:
            kept = keeps(each, cut) & ~each.developing
            if kept.any():
                written.append(self.part(writer, folder, each, kept, lambda _: self.tell(number + 1, 0.0)))
                manifest = str(written[-1].manifest)
                shards.append(Shard(position=each.shard.position, domain=each.shard.domain, manifest=manifest))
        documents, tokens = sum(each.documents for each in written), sum(each.tokens for each in written)
        self.check(documents, tokens, self.curation.cuts[number])
        try:
            trying.train_on(self.context, str(number), shards, lambda share: self.tell(number + 1, share))
        except StageError as error:
            error.documents = tuple(self.original(each, arrived, cut) for each in error.documents)
            raise
        losses = trying.judge(
            self.adapter,
            folder,
            measured,
            self.device,
            context=self.training.context,
            beat=lambda: self.tell(number + 1, 1.0),
        )
        trying.clear(folder)
        loss = bands.rounded(float(np.median(losses)))
        logger.info("Cut tried.", extra={**self.context.names, "cut": number, "documents": documents, "loss": loss})
        return Trial(cut=self.curation.cuts[number], documents=documents, tokens=tokens, loss=loss)

    def original(self, document: Document, arrived: Sequence[Arrived], cut: dict[str, Bounds]) -> Document:
        """Return which of its arrival's documents one of a trial's shard is."""
        (each,) = [each for each in arrived if each.shard.position == document.arrival]
        numbers = np.flatnonzero(keeps(each, cut) & ~each.developing)
        return Document(arrival=document.arrival, number=int(numbers[document.number]))

    def write(self, arrived: Sequence[Arrived], cut: dict[str, Bounds]) -> tuple[list[Written], list[KeptShard]]:
        """Write what is kept, rewritten where the policy says so."""
        rewrite = Rewriting(self.curation.rewrite) if self.curation.rewrite else None
        writer, written, shards = Writer(self.texts, rewrite), [], []
        last, total, done = len(self.curation.cuts) + 1, sum(len(each.part) for each in arrived), 0
        for each in arrived:
            beat = partial(lambda before, at: self.tell(last, (before + at) / total), done)
            found = self.part(writer, self.context.folder / "shards", each, keeps(each, cut), beat)
            done += len(each.part)
            written.append(found)
            if found.documents:
                shards.append(kept_shard(self.context, each.shard, found.manifest))
        return written, shards

    def part(self, writer: Writer, folder: Path, each: Arrived, kept: Bools, beat: Callable[[int], None]) -> Written:
        """Write some documents of an arrival."""
        position = each.shard.position
        name = name_of(self.key, each.part.manifest, kept)
        return writer.write(folder / str(position), each.part, kept, arrival=position, name=name, beat=beat)

    def check(self, documents: int, tokens: int, cut: Cut) -> None:
        """Raise StageError (user_error) where less than a batch is left."""
        batch = self.training.batch * (self.training.context if self.adapter.windows else 1)
        if tokens < batch:
            message = (
                f"The cut (low {cut.low:g}, high {cut.high:g}) leaves {documents:,} documents, {tokens:,} tokens, to "
                f"train on: less than a batch ({batch:,}). Cut less, rewrite more of it, or wait for more data."
            )
            raise StageError("user_error", message)

    def distribution(
        self,
        arrived: Sequence[Arrived],
        cuts: Sequence[dict[str, Bounds]],
        trials: tuple[Trial, ...],
        chosen: int,
    ) -> Artefact:
        """Write scores.json: all that is known of the scores, ready to be drawn."""
        whole = np.concatenate(list(by_domain(arrived).values()))
        found = Distribution(
            unit=self.context.specification.plan.model.unit,
            mean=bands.rounded(whole.mean()),
            sigma=bands.rounded(whole.std()),
            quantiles=bands.quantiles(whole),
            scale=bands.scale(whole),
            by=self.curation.by,
            cuts=[told(arrived, cut) for cut in cuts],
            trials=trials,
            chosen=chosen,
        )
        path = self.context.folder / SCORES
        write_atomically(path, msgspec.json.format(msgspec.json.encode(found)))
        return artefact_of(self.context, "scores", path)

    def tell(self, phase: int, share: float) -> None:
        """Beat; the phases are the scoring, a trial for each cut, and the writing."""
        self.context.beat(round((phase + min(1.0, share)) * WHOLE), (len(self.curation.cuts) + 2) * WHOLE)

    def known(self, name: str) -> bytes | None:
        """Return what this attempt or an earlier one has found, of the same curation."""
        for folder in self.folders:
            path = folder / "found" / self.key / name
            if path.is_file():
                return path.read_bytes()
        return None

    def save(self, name: str, data: bytes) -> None:
        """Keep what was found for an attempt after this one."""
        path = self.context.folder / "found" / self.key / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)


def _key(context: Context) -> str:
    """Return by what findings are known to be of this curation: plan, champion and data, by content."""
    specification = context.specification
    champion = specification.champion.model.sha256 if specification.champion else None
    shards = [digest(context.resolve(shard.manifest)) for shard in (*specification.past, *specification.new)]
    whole = [specification.plan, champion, shards, specification.remedy.without]
    return hashlib.sha256(msgspec.json.encode(whole)).hexdigest()[:16]
