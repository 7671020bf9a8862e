"""Probe: what the new arrivals are like and how far they are from what the champion knows, before any training."""

from collections.abc import Callable, Mapping

from daemon.core.events import Lengths, ProbeMeasured
from daemon.core.plans import tokens
from stages.base import Context, Result
from stages.run_folder import Shard
from stages.training.data.manifests import Manifest, read_manifest
from stages.training.engine.device import prepare
from stages.training.judging import drift
from stages.training.judging.curve import expected_gain
from stages.training.judging.evaluation import Budget, Excerpts, Floats, Side, shift_between, summarise
from stages.training.judging.fitting import fit
from stages.training.judging.measuring import held_out, load_recorded
from stages.training.models import adapter_of

BUDGET = Budget(documents=64, bytes=64 * 1024, examples=1024)
Manifests = Mapping[str, list[Manifest]]


class Probe:
    """The champion's loss on held-out documents of the new arrivals and of the past, per domain."""

    def run(self, context: Context) -> Result:
        """Measure, and tell `probe.measured`; without a champion only what the new documents are like.

        Raises StageError (bad_checkpoint) when the champion's files are not those recorded, (not_finite) when it has
        no finite loss, and (bad_sample) when a shard cannot be read.
        """
        specification = context.specification
        seed = specification.plan.training.seed
        manifests = by_domain(context, specification.new)
        new, past = measure(context)
        shift = shift_between(new, past, seed=seed)
        context.emit(
            ProbeMeasured(
                **context.names,
                new={domain: summarise(nats, new.bytes[domain], seed=seed) for domain, nats in new.nats.items()},
                past={domain: summarise(nats, past.bytes[domain], seed=seed) for domain, nats in past.nats.items()},
                shift=shift.mean if shift else None,
                shift_low=shift.low if shift else None,
                shift_high=shift.high if shift else None,
                near_duplicates=near_duplicates(manifests),
                lengths=lengths(manifests),
                law=fit(specification.history),
                drift=distances(new, past),
                expected_gain=expected_gain(specification.history, tokens(specification.plan.new)),
            )
        )
        return Result(metrics={"shift": shift.mean} if shift else {})


def measure(context: Context) -> tuple[Side, Side]:
    """Return what the new and the past documents cost the champion; without one, nothing."""
    specification = context.specification
    if specification.champion is None:
        return Side(), Side()
    device = prepare(specification.threads)
    adapter = adapter_of(context)
    model = load_recorded(context, adapter, specification.champion.model, device)
    new = held_out(context, specification.new, BUDGET)
    past = held_out(context, specification.past, BUDGET)
    done, total = 0, len(new) + len(past)
    language = specification.plan.model.kind != "module"  # else tokens are the bytes of examples

    def nats(excerpts: Excerpts) -> Floats:
        nonlocal done
        size = specification.plan.training.context
        measured = adapter.document_nats(model, excerpts.tokens, context=size, beat=lambda: context.beat(done, total))
        done += 1
        return measured

    def side(excerpts: Mapping[str, Excerpts], shards: tuple[Shard, ...]) -> Side:
        return Side(
            nats={domain: nats(each) for domain, each in excerpts.items()},
            bytes={domain: each.bytes for domain, each in excerpts.items()},
            documents={d: each.tokens for d, each in excerpts.items()} if language else {},
            weights={
                domain: sum(m.train_tokens for m in found) for domain, found in by_domain(context, shards).items()
            },
        )

    return side(new, specification.new), side(past, specification.past)


def distances(new: Side, past: Side) -> dict[str, float]:
    """Return how far the new documents are from the past ones, by the champion's losses and by their tokens."""
    sides = [
        [document for domain in sorted(side.documents) for document in side.documents[domain]] for side in (new, past)
    ]
    return {**drift.of_losses(new.losses(), past.losses()), **drift.of_tokens(*sides)}


def by_domain(context: Context, shards: tuple[Shard, ...]) -> dict[str, list[Manifest]]:
    """Return the shards' manifests, by domain."""
    found: dict[str, list[Manifest]] = {}
    for shard in shards:
        found.setdefault(shard.domain, []).append(read_manifest(context.resolve(shard.manifest)))
    return found


def near_duplicates(manifests: Manifests) -> dict[str, float]:
    """Return the share of each domain's documents that nearly are one seen before, where ingest counted them."""
    shares = {}
    for domain, found in sorted(manifests.items()):
        counted = [each.near_duplicates for each in found if each.near_duplicates is not None]
        documents = sum(each.train_documents + each.held_out_documents for each in found)
        if documents and len(counted) == len(found):
            shares[domain] = round(sum(counted) / documents, 9)
    return shares


def lengths(manifests: Manifests) -> dict[str, Lengths]:
    """Return what each domain's documents are like, where ingest measured them.

    Of several arrivals the median is the median of theirs, each counted as often as it has documents.
    """
    return {
        domain: together([each.lengths for each in found if each.lengths is not None])
        for domain, found in sorted(manifests.items())
        if found and all(each.lengths is not None for each in found)
    }


def together(parts: list[Lengths]) -> Lengths:
    """Return the lengths of several arrivals as those of one."""
    documents = sum(part.documents for part in parts)
    sizes = [part.documents * part.mean for part in parts]
    size = max(1.0, sum(sizes))

    def share(of: Callable[[Lengths], float]) -> float:
        return round(sum(of(part) * bytes_ for part, bytes_ in zip(parts, sizes, strict=True)) / size, 9)

    return Lengths(
        documents=documents,
        mean=round(sum(sizes) / max(1, documents), 3),
        median=middle([(part.median, part.documents) for part in parts]),
        longest=max(part.longest for part in parts),
        ascii=share(lambda part: part.ascii),
        whitespace=share(lambda part: part.whitespace),
        digits=share(lambda part: part.digits),
    )


def middle(counted: list[tuple[float, int]]) -> float:
    """Return the median of values that each count so many times."""
    half = sum(count for _, count in counted) / 2
    passed = 0
    for value, count in sorted(counted):
        passed += count
        if passed >= half:
            return value
    raise ValueError("there is no median of nothing")
