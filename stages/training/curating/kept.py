"""What a run trains on once its stage `curate` is done: the shards that it names, and nothing else."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from daemon.core.errors import StageError
from daemon.core.events import Artefact
from daemon.files import write_atomically
from stages.base import Context
from stages.run_folder import Shard
from stages.training.files import digest

CURATED = "curated.json"


class KeptShard(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of an arrival: the manifest of its shard below the state folder."""

    position: int
    domain: str
    manifest: str
    sha256: str


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What a curation keeps."""

    format: int = 1
    shards: tuple[KeptShard, ...]


def kept_shard(context: Context, shard: Shard, manifest: Path) -> KeptShard:
    """Return what is kept of a shard, named by its manifest."""
    path = context.state_path(manifest)
    return KeptShard(position=shard.position, domain=shard.domain, manifest=path, sha256=digest(manifest))


def trained_on(context: Context) -> tuple[Sequence[Shard], Sequence[Shard]]:
    """Return the new and the past shards that the run trains on; of a curated run all are new.

    What was withdrawn since then is left out. Raises StageError (bad_sample) when what was kept is gone or is another.
    """
    specification = context.specification
    curated = specification.done.get("curate")
    if curated is None:
        return specification.new, specification.past
    path = context.resolve(curated) / CURATED
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=Kept)
        changed = next((each for each in kept.shards if digest(context.resolve(each.manifest)) != each.sha256), None)
    except (OSError, msgspec.MsgspecError) as error:
        message = f"What the stage `curate` kept, {path}, cannot be read ({error}): the run has to be started again."
        raise StageError("bad_sample", message) from error
    if changed is not None:
        message = f"The curated shard {changed.manifest} is not the one that was kept: the run has to be started again."
        raise StageError("bad_sample", message)
    there = {shard.position for shard in (*specification.new, *specification.past)}
    return [
        Shard(position=each.position, domain=each.domain, manifest=str(context.resolve(each.manifest)))
        for each in kept.shards
        if each.position in there
    ], ()


def keep(context: Context, shards: Sequence[KeptShard]) -> Artefact:
    """Write what is kept for `train` to find."""
    path = context.folder / CURATED
    write_atomically(path, msgspec.json.format(msgspec.json.encode(Kept(shards=tuple(shards)))))
    return artefact_of(context, "curated", path)


def artefact_of(context: Context, name: str, path: Path) -> Artefact:
    """Return a file as a stage names it."""
    return Artefact(name=name, path=context.state_path(path), sha256=digest(path), bytes=path.stat().st_size)
