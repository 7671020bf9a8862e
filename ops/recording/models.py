"""A pipeline's registered model as the journal has it: versions, and who is champion, candidate, previous."""

from collections.abc import Iterable

from daemon.core.events import (
    ModelEvaluated,
    ModelPromoted,
    ModelRejected,
    ModelRolledBack,
    Record,
    RunCancelled,
    RunFailed,
)
from ops.recording.content import Models, ModelVersion


class _Tally:
    """The versions and their roles while the records are read."""

    def __init__(self) -> None:
        self.versions: dict[str, ModelVersion] = {}
        self.by_number: dict[int, str] = {}
        self.champion: str | None = None
        self.previous: str | None = None
        self.candidate: str | None = None
        self.before: tuple[str | None, str | None] = (None, None)

    def tag(self, run: str, path: str | None = None, sha256: str = "", **tags: str) -> None:
        old = self.versions.get(run)
        before = old.tags if old else {"rewarm.run_id": run}
        self.versions[run] = ModelVersion(
            run=run,
            tags={**before, **{f"rewarm.{key}": value for key, value in tags.items()}},
            path=path or (old.path if old else None),
            sha256=sha256 or (old.sha256 if old else ""),
        )

    def drop_candidate(self, run: str) -> None:
        if self.candidate == run:
            self.candidate = None


def models(pipeline: str, records: Iterable[Record]) -> Models:
    """Return what a pipeline's registered model shall look like after `records`, all of its model records."""
    tally = _Tally()
    for record in records:
        _fold(tally, record)
    numbers = {run: str(number) for number, run in tally.by_number.items()}
    return Models(
        pipeline=pipeline,
        versions=tuple(tally.versions.values()),
        aliases={"champion": tally.champion, "candidate": tally.candidate, "previous": tally.previous},
        champion=numbers.get(tally.champion) if tally.champion else None,
    )


def _fold(tally: _Tally, record: Record) -> None:
    match record.event:
        case ModelEvaluated(run=run) as event:
            tally.tag(run, sha256=event.candidate.sha256, path=None, outcome="candidate",
                      path_in_state=event.candidate.path)  # fmt: skip
            tally.candidate = run
        case ModelPromoted(run=run) as event:
            tally.tag(run, path=event.path, sha256=event.sha256, outcome="promoted",
                      version=str(event.model_version), path_in_state=event.path)  # fmt: skip
            if event.adopted_from is not None:
                tally.tag(run, adopted_from=event.adopted_from)
            tally.by_number[event.model_version] = run
            tally.drop_candidate(run)
            if tally.champion != run:
                tally.before = (tally.champion, tally.previous)
                tally.champion, tally.previous = run, tally.champion
        case ModelRejected(run=run):
            if run in tally.versions:
                tally.tag(run, outcome="rejected")
            tally.drop_candidate(run)
        case ModelRolledBack() as event:
            back = tally.by_number.get(event.model_version)
            withdrawn = tally.by_number.get(event.withdrawn_version)
            if withdrawn is not None:
                tally.tag(withdrawn, outcome="rolled back")
            if back is not None:
                tally.champion, tally.previous = back, None
        case RunFailed(run=run) | RunCancelled(run=run):
            tally.drop_candidate(run)
            if tally.champion == run:  # a run whose promotion counts ends as succeeded: this one came too late
                tally.tag(run, outcome="promoted too late")
                tally.champion, tally.previous = tally.before
        case _:
            pass
