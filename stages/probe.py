"""Probe: how far the new arrivals are from what the champion knows, before anything is trained."""

from daemon.core.events import Loss, ProbeMeasured
from stages.base import Context, Result
from stages.run_folder import Shard
from stages.training.device import prepare
from stages.training.evaluation import Budget, Excerpts, summarise
from stages.training.measuring import held_out, load_recorded
from stages.training.models import adapter_of
from stages.training.shards import read_manifest

BUDGET = Budget(documents=64, bytes=64 * 1024)


class Probe:
    """The champion's loss on held-out documents of the new arrivals and of the past, per domain."""

    def run(self, context: Context) -> Result:
        """Measure, and tell `probe.measured`; without a champion there is nothing to measure.

        Raises StageError (bad_checkpoint) when the champion's files are not those recorded.
        """
        specification = context.specification
        if specification.champion is None:
            context.emit(ProbeMeasured(**context.names, new={}, past={}))
            return Result()
        device = prepare(specification.threads)
        adapter = adapter_of(context)
        model = load_recorded(context, adapter, specification.champion.model, device)
        new = held_out(context, specification.new, BUDGET)
        past = held_out(context, specification.past, BUDGET)
        total = len(new) + len(past)
        done = 0

        def measure(excerpts: Excerpts) -> Loss:
            nonlocal done
            nats = adapter.document_nats(
                model,
                excerpts.tokens,
                context=specification.plan.training.context,
                beat=lambda: context.beat(done, total),
            )
            done += 1
            return summarise(nats, excerpts.bytes, seed=specification.plan.training.seed)

        losses_new = {domain: measure(excerpts) for domain, excerpts in new.items()}
        losses_past = {domain: measure(excerpts) for domain, excerpts in past.items()}
        mean_new = weighted_mean(losses_new, tokens_by_domain(context, specification.new))
        mean_past = weighted_mean(losses_past, tokens_by_domain(context, specification.past))
        shift = None if mean_new is None or mean_past is None else round(mean_new - mean_past, 9)
        context.emit(ProbeMeasured(**context.names, new=losses_new, past=losses_past, shift=shift))
        return Result(metrics={} if shift is None else {"shift": shift})


def tokens_by_domain(context: Context, shards: tuple[Shard, ...]) -> dict[str, int]:
    """Return the training tokens of each domain."""
    total: dict[str, int] = {}
    for shard in shards:
        manifest = read_manifest(context.resolve(shard.manifest))
        total[shard.domain] = total.get(shard.domain, 0) + manifest.train_tokens
    return total


def weighted_mean(losses: dict[str, Loss], tokens: dict[str, int]) -> float | None:
    """Return the mean loss over domains weighted by their tokens; None where nothing was measured."""
    weight = sum(tokens[domain] for domain in losses)
    return sum(losses[domain].mean * tokens[domain] for domain in losses) / weight if weight else None
