"""What an attempt is told, read from the journal."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon.core.events import (
    Comparison,
    DataArrived,
    DataIngested,
    DataRejected,
    DataWithdrawn,
    Loss,
    ModelEvaluated,
    ModelPromoted,
    ModelRolledBack,
    OperatorRequested,
    PlanFixed,
    ProbeMeasured,
    RunSucceeded,
    StageSucceeded,
)
from daemon.core.plans import Checkpoint, Span
from daemon.core.state import Model, Run
from daemon.dispatch.specification import HISTORY, attempt_folder, specify
from stages.roots import Remote
from stages.run_folder import Specification

Build = Any
Book = Any
ESTIMATE = 10


def arrived(uri: str = "a", domain: str = "prose") -> DataArrived:
    """An arrival of ten tokens."""
    return DataArrived(uri=uri, domain=domain, tokens=ESTIMATE, bytes=ESTIMATE, documents=1)


def ingested(build: Build, arrival: int, run: str = "p-9", tokens: int = 8, manifest: str = "") -> DataIngested:
    """What ingest tells of an arrival."""
    return DataIngested(
        run=run,
        stage="ingest",
        attempt=1,
        arrival=arrival,
        domain="prose",
        estimate=build.amount(ESTIMATE),
        amount=build.amount(tokens),
        duplicates=0,
        manifest=manifest or f"shards/{run}-{arrival}",
        sha256=build.sha,
    )


def specified(build: Build, book: Book, root: Path, run: Run | None = None, **pipeline: object) -> Specification:
    """Specify the attempt that a run orders."""
    made = build.pipeline(run, **pipeline)
    return specify(book, made, made.active.order, state=Path("/state"), roots=(root,), threads=3)


def test_the_arrivals_of_the_spans(build: Build, book: Book, tmp_path: Path) -> None:
    """Those inside the spans, of this pipeline, neither withdrawn nor rejected; exact where ingested."""
    first = book.write(arrived("before"))
    inside = [book.write(arrived(name)) for name in ("a", "b", "c", "d")]
    book.write(arrived("foreign"), "q")
    gone, bad, counted, plain = inside
    upto = book.head()
    after = book.write(arrived("after"))
    readmitted = book.write(arrived("again"))
    book.write(DataWithdrawn(arrival_source="/s", arrival_id="x", arrival=gone))
    rejection = DataRejected(
        run="p-9",
        stage="ingest",
        attempt=1,
        arrival=bad,
        domain="prose",
        estimate=build.amount(1),
        reason="r",
        message="m",
    )
    book.write(rejection)
    book.write(ingested(build, counted, tokens=7))
    plan = build.plan((first, upto), (after, readmitted))
    found = specified(build, book, tmp_path, build.run(plan=plan)).arrivals
    assert [arrival.position for arrival in found] == [counted, plain, readmitted]
    assert found[0].counted == build.amount(7)
    assert found[1].counted is None
    assert (found[1].tokens, found[1].documents, found[1].domain) == (ESTIMATE, 1, "prose")
    assert found[1].path == str(tmp_path / "d")


def rejected(build: Build, arrival: int, run: str = "p-9", attempt: int = 1) -> DataRejected:
    """What ingest tells of an arrival that it cannot use."""
    return DataRejected(
        run=run,
        stage="ingest",
        attempt=attempt,
        arrival=arrival,
        domain="prose",
        estimate=build.amount(7),
        reason="truncated",
        message="It is half a file.",
    )


def retried(dead_letter: int, arrival: int) -> OperatorRequested:
    """A person's retry, as it is completed at the door."""
    return OperatorRequested(verb="retry", dead_letter=dead_letter, spans=(Span(after=arrival - 1, upto=arrival),))


def test_a_retried_arrival_is_for_runs_that_are_planned_afterwards(build: Build, book: Book, tmp_path: Path) -> None:
    """The run that refused it does not get it back, however often it ingests; the next one does, until it refuses."""
    bad, good = book.write(arrived("bad")), book.write(arrived("good"))
    first = build.run(plan=build.plan((0, book.head())))
    letter = book.write(rejected(build, bad))
    book.write(OperatorRequested(verb="retry", run="p-9"))
    book.write(retried(letter, bad))
    next_one = build.run(plan=build.plan((0, book.head())))

    def told(run: Run) -> list[int]:
        return [arrival.position for arrival in specified(build, book, tmp_path, run).arrivals]

    assert (told(first), told(next_one)) == ([good], [bad, good])
    assert specified(build, book, tmp_path, next_one).arrivals[0].counted == build.amount(7)
    letter = book.write(rejected(build, bad, run="p-12"))
    assert told(next_one) == [good]
    book.write(OperatorRequested(verb="drop", dead_letter=letter, spans=(Span(after=bad - 1, upto=bad),)))
    assert told(build.run(plan=build.plan((0, book.head())))) == [good]


def test_a_shard_is_no_longer_the_runs_when_a_later_attempt_refuses_its_arrival(
    build: Build, book: Book, tmp_path: Path
) -> None:
    """The file changed between two attempts: it is set aside, so it is not trained on."""
    book.write(ingested(build, 1))
    book.write(ingested(build, 2))
    book.write(rejected(build, 1, attempt=2))
    assert [shard.position for shard in specified(build, book, tmp_path).new] == [2]


def test_without_spans_there_are_no_arrivals(build: Build, book: Book, tmp_path: Path) -> None:
    """A retrain over the past alone takes nothing new."""
    book.write(arrived())
    assert specified(build, book, tmp_path).arrivals == ()


def test_a_uri_outside_the_roots_is_left_for_ingest_to_refuse(build: Build, book: Book, tmp_path: Path) -> None:
    """The roots may have changed since the arrival: its uri is passed on as it is."""
    position = book.write(arrived("/elsewhere/a"))
    (arrival,) = specified(build, book, tmp_path, build.run(plan=build.plan((0, position)))).arrivals
    assert arrival.path == "/elsewhere/a"


def test_roots_elsewhere_are_handed_on_without_secrets(build: Build, book: Book, tmp_path: Path) -> None:
    """An arrival below one keeps its url; the specification names the credentials' file, and survives its JSON."""
    position = book.write(arrived("s3://bucket/in/a.jsonl"))
    made = build.pipeline(build.run(plan=build.plan((0, position))))
    assert made.active
    assert made.active.order
    remote = Remote(url="s3://bucket/in", credentials="/secrets/s3.json")
    told = specify(book, made, made.active.order, state=Path("/state"), roots=(tmp_path, remote), threads=1)
    assert [arrival.path for arrival in told.arrivals] == ["s3://bucket/in/a.jsonl"]
    again = msgspec.json.decode(msgspec.json.encode(told), type=Specification)
    assert again.roots == (str(tmp_path), remote)
    assert again.folders == (str(tmp_path),)


def test_new_shards_are_those_of_the_run(build: Build, book: Book, tmp_path: Path) -> None:
    """The last word of its own ingest counts, another run's does not; withdrawn ones are left out."""
    book.write(ingested(build, 1, manifest="shards/old"))
    book.write(ingested(build, 1, manifest="shards/new"))
    book.write(ingested(build, 2))
    book.write(ingested(build, 3, run="p-5"))
    book.write(DataWithdrawn(arrival_source="/s", arrival_id="x", arrival=2))
    (shard,) = specified(build, book, tmp_path).new
    assert (shard.position, shard.manifest) == (1, "/state/shards/new")


def rolled_back(build: Build, run: str) -> ModelRolledBack:
    """What is told when a champion is taken back."""
    return ModelRolledBack(
        run=run, withdrawn_version=3, model_version=2, path="v2", sha256=build.sha, reason="It was bad."
    )


def test_the_past_is_what_was_promoted_and_not_rolled_back(build: Build, book: Book, tmp_path: Path) -> None:
    """In order, without what was rolled back, rejected, withdrawn, or another pipeline's."""
    for number in range(1, 7):
        book.write(ingested(build, number, run=f"p-{number}"))
    book.write(ingested(build, 50, run="q-1"), "q")
    book.write(RunSucceeded(run="p-1", outcome="promoted"))
    book.write(RunSucceeded(run="p-3", outcome="promoted"))
    book.write(rolled_back(build, "p-3"))
    book.write(RunSucceeded(run="p-2", outcome="promoted"))
    book.write(RunSucceeded(run="p-4", outcome="rejected"))
    book.write(RunSucceeded(run="q-1", outcome="promoted"), "q")
    book.write(DataWithdrawn(arrival_source="/s", arrival_id="x", arrival=6))
    book.write(RunSucceeded(run="p-6", outcome="promoted"))
    past = specified(build, book, tmp_path, build.run(plan=build.plan(parent=2))).past
    assert [(shard.position, shard.manifest) for shard in past] == [
        (1, "/state/shards/p-1-1"),
        (2, "/state/shards/p-2-2"),
    ]


def test_a_model_rolled_back_before_its_run_ended_is_no_past(build: Build, book: Book, tmp_path: Path) -> None:
    """Its run still ends as promoted afterwards."""
    book.write(ingested(build, 1, run="p-1"))
    book.write(rolled_back(build, "p-1"))
    book.write(RunSucceeded(run="p-1", outcome="promoted"))
    assert specified(build, book, tmp_path, build.run(plan=build.plan(parent=2))).past == ()


def test_without_a_champion_there_is_no_past(build: Build, book: Book, tmp_path: Path) -> None:
    """A first model replays nothing."""
    book.write(ingested(build, 1, run="p-1"))
    book.write(RunSucceeded(run="p-1", outcome="promoted"))
    assert specified(build, book, tmp_path).past == ()


def test_the_champion_and_the_next_version(build: Build, book: Book, tmp_path: Path) -> None:
    """The champion's files and trunk, and the version that a promotion would get."""
    assert specified(build, book, tmp_path).champion is None
    assert specified(build, book, tmp_path).model_version == 1
    model = Model(
        version=2,
        run="p-2",
        path="v2",
        sha256=build.sha,
        trunk=Checkpoint(path="t2", sha256=build.sha),
        parent=1,
        losses={},
        past={},
        promoted_at=build.noon,
        position=5,
    )
    specification = specified(build, book, tmp_path, champion=model, versions=7)
    assert specification.champion is not None
    assert (specification.champion.version, specification.champion.model.path) == (2, "v2")
    assert specification.champion.trunk.path == "t2"
    assert specification.model_version == 8


def test_stages_that_are_done_and_attempts_to_resume_from(build: Build, book: Book, tmp_path: Path) -> None:
    """The folders of the run's finished stages; those of earlier attempts, where the order resumes."""
    for stage, attempt, run in (("ingest", 2, "p-9"), ("probe", 1, "p-9"), ("train", 1, "p-5")):
        book.write(StageSucceeded(run=run, stage=stage, attempt=attempt, seconds=1.0))
    resumed = specified(build, book, tmp_path, build.run(build.order(attempt=3, resume=True)))
    assert resumed.done == {"ingest": "/state/runs/p-9/ingest/2", "probe": "/state/runs/p-9/probe/1"}
    assert resumed.resume_from == ("/state/runs/p-9/train/1", "/state/runs/p-9/train/2")
    assert specified(build, book, tmp_path, build.run(build.order(attempt=3))).resume_from == ()


def test_the_order_is_passed_on(build: Build, book: Book, tmp_path: Path) -> None:
    """Names, command, threads and the class that carries it out."""
    specification = specified(build, book, tmp_path)
    assert (specification.run, specification.stage, specification.attempt) == ("p-9", "train", 1)
    assert specification.command == "9/p/x/1"
    assert (specification.implementation, specification.threads) == ("stages.train:Train", 3)
    assert specification.state == "/state"
    own = specified(build, book, tmp_path, build.run(build.order("my.module:Own")))
    assert own.implementation == "my.module:Own"


def test_folders_of_attempts(build: Build) -> None:
    """A class name is no part of a path that somebody could step out by."""
    assert attempt_folder(Path("/s"), "p-9", "train", 2) == Path("/s/runs/p-9/train/2")
    assert attempt_folder(Path("/s"), "p-9", "my.module:Own", 1) == Path("/s/runs/p-9/my.module.Own/1")


def test_a_pipeline_without_a_run_has_nothing_to_specify(build: Build, book: Book, tmp_path: Path) -> None:
    """It is an error of the caller."""
    with pytest.raises(ValueError, match="no active run"):
        specify(book, build.pipeline(active=None), build.order(), state=tmp_path, roots=(), threads=0)


def measured(build: Build, book: Book, run: str, loss: float = 1.0, kind: str = "increment") -> None:
    """Write what a run's plan, probe and evaluation told."""
    flat = Loss(mean=loss, low=loss, high=loss, documents=1, bytes=1)
    plan = msgspec.structs.replace(build.plan((0, 1)), kind=kind)
    book.write(PlanFixed(run=run, plan=plan))
    book.write(ProbeMeasured(run=run, stage="probe", attempt=1, new={"prose": flat}, past={"code": flat}))
    candidate = Checkpoint(path="c", sha256=build.sha)
    domains = {"prose": Comparison(candidate=flat, champion=flat, difference=flat)}
    book.write(ModelEvaluated(run=run, stage="evaluate", attempt=1, domains=domains, candidate=candidate))


def promoted(build: Build, book: Book, version: int, losses: dict[str, float]) -> None:
    """Write that a model was published."""
    trunk = Checkpoint(path="t", sha256=build.sha)
    event = ModelPromoted(
        run=f"p-{version}",
        stage="promote",
        attempt=1,
        model_version=version,
        path=f"v{version}",
        sha256=build.sha,
        trunk=trunk,
        parent=None,
        spans=(),
        losses=losses,
    )
    book.write(event)


def test_a_probe_is_told_what_became_of_past_increments(build: Build, book: Book, tmp_path: Path) -> None:
    """Those that were measured before and after, with the lowest losses known by then; no other stage is told."""
    promoted(build, book, 1, {"code": 1.5})
    measured(build, book, "p-2", 1.2)
    promoted(build, book, 2, {"code": 1.4, "prose": 1.1})
    promoted(build, book, 3, {"code": 1.6})
    measured(build, book, "p-4", 1.3)
    measured(build, book, "p-5", kind="retrain")
    book.write(PlanFixed(run="p-6", plan=build.plan((0, 1))))
    measured(build, book, "p-9")
    (first, second) = specified(build, book, tmp_path, build.run(build.order(stage="probe"))).history
    assert (first.run, first.best, first.new["prose"].mean) == ("p-2", {"code": 1.5}, 1.2)
    assert (second.run, second.best, second.old["code"].mean) == ("p-4", {"code": 1.4, "prose": 1.1}, 1.3)
    assert second.evaluation["prose"].candidate.mean == 1.3
    assert specified(build, book, tmp_path, build.run(build.order(stage="train"))).history == ()


def test_the_past_that_a_probe_is_told_is_bounded(build: Build, book: Book, tmp_path: Path) -> None:
    """However long a pipeline lives, the last increments are told, and the whole still is a small file."""
    for number in range(10, 10 + HISTORY + 3):
        measured(build, book, f"p-{number}")
    found = specified(build, book, tmp_path, build.run(build.order(stage="probe")))
    assert [past.run for past in found.history] == [f"p-{number}" for number in range(13, 13 + HISTORY)]
    assert len(msgspec.json.encode(found)) < 128 << 10
