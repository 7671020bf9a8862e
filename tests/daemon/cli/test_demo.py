"""The demo's parts: what it delivers when, what it shows while it works, and its last page."""

import io
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec
import pytest
from rich.console import Console

from daemon.cli import demo
from daemon.cli.demo.processes import start_over
from daemon.cli.demo.report import collect, render
from daemon.cli.demo.screen import Bars, Lines, choose
from daemon.cli.demo.steps import SOURCE, STEPS, delivered, goal, settled
from daemon.cli.demo.watch import Watch
from daemon.core.errors import RewarmError
from daemon.core.events import OperatorRequested, StageProgressed
from daemon.core.state import Pipeline
from daemon.journal.sqlite import open_reader

if TYPE_CHECKING:
    from daemon.config import Configuration
    from tests.daemon.cli.conftest import Chronicle, Command


@pytest.mark.parametrize(
    ("done", "at_rest", "wanted"),
    [(0, True, 2), (1, False, 2), (1, True, 2), (2, True, 3), (2, False, 2), (3, True, 3), (3, False, 3)],
)
def test_how_many_arrivals_a_demo_ends_with(done: int, at_rest: bool, wanted: int) -> None:
    """The first demo delivers two arrivals, the next one the third, and an interrupted one what it had begun."""
    assert goal(done, at_rest=at_rest) == wanted


def test_what_was_delivered_is_found_in_the_journal(chronicle: "Chronicle") -> None:
    """Arrivals of the demo's own source count, others do not."""
    chronicle.arrive("prose", 900_000, id=STEPS[0].id, source=SOURCE)
    chronicle.arrive("prose", 900_000, id=STEPS[1].id, source="/somebody")

    with open_reader(chronicle.configuration.journal) as reader:
        assert list(delivered(reader, "docs-lm")) == [STEPS[0].id]
    assert delivered(None, "docs-lm") == {}


def test_a_pipeline_is_settled_when_nothing_follows(chronicle: "Chronicle") -> None:
    """A run or a wish means that there is more to come; data that lets a policy wait does not."""
    assert settled(Pipeline(name="docs-lm"))
    chronicle.arrive("prose", 10, id="little")
    assert settled(chronicle.pipeline)
    chronicle.arrive("prose", 900_000, id="much")
    assert not settled(chronicle.pipeline)


class Noted:
    """A screen that remembers."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def say(self, sentence: str, style: str = "") -> None:
        """Remember a sentence."""
        self.told.append(sentence.strip())

    def begin(self, stage: str, total: int | None) -> None:
        """Remember a beginning."""
        self.told.append(f"{stage} begins")

    def advance(self, stage: str, step: int, total: int, told: str) -> None:
        """Remember a step."""
        self.told.append(f"{stage} {step}/{total} {told}")

    def end(self, stage: str, told: str, *, well: bool = True) -> None:
        """Remember an end."""
        self.told.append(f"{stage} {'ends' if well else 'breaks'}: {told}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keep everything."""


def watched(chronicle: "Chronicle", screen: Noted) -> Watch:
    """Return a watch that begins with the journal as it is."""
    reader = open_reader(chronicle.configuration.journal)
    return Watch(reader, chronicle.state, "docs-lm", chronicle.configuration.state / "runs", screen)


def test_watching_tells_decisions_stages_and_ends(chronicle: "Chronicle") -> None:
    """From the decision to the promotion everything that matters is shown once."""
    screen = Noted()
    watch = watched(chronicle, screen)
    chronicle.arrive("prose", 900_000, id="prose-1")
    run = chronicle.train()

    watch.until_settled(lambda: pytest.fail("nothing is waited for"))

    told = "\n".join(screen.told)
    assert "rewarm_replay: 900,000 new tokens wait: a base training is due." in told
    assert "ingest ends: 20 documents, 899,000 tokens" in told
    assert "probe ends: no champion yet" in told
    assert "train ends: 512 tok/s" in told
    assert "promote ends: version 1" in told
    assert screen.told[-1] == f"{run}: promoted."
    assert not watch.failures


def test_watching_waits_for_what_is_not_there_yet(chronicle: "Chronicle") -> None:
    """As long as a run goes on somebody has to be alive."""
    chronicle.arrive("prose", 900_000, id="prose-1")
    screen = Noted()
    looks: list[int] = []

    def alive() -> None:
        looks.append(1)
        chronicle.train()

    watched(chronicle, screen).until_settled(alive)

    assert len(looks) == 1
    assert any("goes on" in told for told in screen.told)


def test_a_failed_run_is_told_with_its_log(chronicle: "Chronicle") -> None:
    """Why a run failed, and which file says more."""
    screen = Noted()
    watch = watched(chronicle, screen)
    chronicle.arrive("prose", 900_000, id="prose-1")
    run = chronicle.pipeline.active
    assert run is not None
    log = chronicle.configuration.state / "runs" / run.run / "ingest" / "1" / "log.txt"
    log.parent.mkdir(parents=True)
    log.touch()
    chronicle.stage(failure="No such preset.")

    watch.until_settled(lambda: pytest.fail("nothing is waited for"))

    assert "No such preset." in watch.failures[0]
    assert str(log) in watch.failures[0]
    assert "ingest breaks: user_error: No such preset." in screen.told


def test_a_paused_pipeline_is_not_waited_for(chronicle: "Chronicle") -> None:
    """A wish that a pause holds back ends the watch with a sentence."""
    screen = Noted()
    watch = watched(chronicle, screen)
    chronicle.tell(OperatorRequested(verb="pause", by="ann"))
    chronicle.arrive("prose", 900_000, id="prose-1")

    watch.until_settled(lambda: pytest.fail("nothing is waited for"))

    assert screen.told[-1].startswith("Paused by ann")


def test_training_shows_its_numbers(chronicle: "Chronicle") -> None:
    """Step, loss, learning rate and speed reach the screen."""
    screen = Noted()
    watch = watched(chronicle, screen)
    chronicle.arrive("prose", 900_000, id="prose-1")
    run = chronicle.pipeline.active
    assert run is not None
    metrics = {"loss": 2.5, "learning_rate": 3e-3, "tokens_per_second": 9000.0, "seconds_left": 75.0}
    chronicle.tell(StageProgressed(run=run.run, stage="train", attempt=1, step=7, steps=20, metrics=metrics))

    watch.look()

    assert screen.told[-1] == "train 7/20 loss 2.500  rate 3.0e-03  9,000 tok/s  75 s left"


def test_bars_in_a_terminal() -> None:
    """In a terminal each stage is a bar that stays when it has ended."""
    console = Console(force_terminal=True, width=80, record=True, file=io.StringIO())
    with Bars(console) as bars:
        bars.say("first")
        bars.begin("train", None)
        bars.advance("train", 5, 10, "loss 2.0")
        bars.end("train", "loss 1.0")
        bars.end("promote", "failed", well=False)
        bars.say("second")

    told = console.export_text()
    assert told.index("first") < told.index("loss 1.0") < told.index("second")


def test_lines_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal there are plain lines, on standard error where standard output is JSON."""
    assert isinstance(choose(Console(force_terminal=False), as_json=False), Lines)
    assert isinstance(choose(Console(force_terminal=True), as_json=True), Lines)
    with Lines(stderr=True) as lines:
        lines.begin("train", 10)
        lines.advance("train", 5, 10, "too soon")
        lines.end("train", "loss 1.0")

    assert capsys.readouterr().err.splitlines() == ["  train …", "  train done: loss 1.0"]


@pytest.fixture
def demonstrated(chronicle: "Chronicle") -> "Chronicle":
    """A journal with the demo's three arrivals, all trained on; no daemon runs."""
    chronicle.arrive("prose", 900_000, id=STEPS[0].id, source=SOURCE)
    chronicle.train()
    chronicle.arrive("code", 600_000, id=STEPS[1].id, source=SOURCE)
    chronicle.train({"prose": 0.004, "code": -0.8}, shift=0.9)
    chronicle.arrive("tests", 600_000, id=STEPS[2].id, source=SOURCE)
    chronicle.train({"prose": 0.001, "code": 0.002, "tests": -0.3}, shift=0.3)
    chronicle.close()
    return chronicle


@pytest.mark.parametrize("width", [80, 120])
def test_the_last_page_tells_the_whole_story(
    demonstrated: "Chronicle", configuration: "Configuration", width: int
) -> None:
    """Arrivals, decisions with numbers, losses before and after, forgetting, gain, champion and what to type."""
    with open_reader(configuration.journal) as reader:
        report = collect(configuration, reader, demonstrated.state, "docs-lm", seconds=12.0, news=True)
    console = Console(width=width, record=True, file=io.StringIO())
    for part in render(report, configuration.state, width=width):
        console.print(part)
    told = console.export_text()

    assert max(map(len, told.splitlines())) <= width
    for expected in ("stdlib-prose-1", "599,000 tokens", "an increment is due", "strong", "gain", "forgotten"):
        assert expected in told
    for expected in ("at most 0.0200", "version 3", "var/journal.db", "mlflow.db", "explain docs-lm-", "status"):
        assert expected in told
    assert [story.ending.outcome for story in report.runs] == ["promoted"] * 3


def test_the_last_page_is_about_the_arrivals_of_whom_it_is_asked(
    demonstrated: "Chronicle", configuration: "Configuration"
) -> None:
    """Runs that other senders' arrivals brought are told only where those are named."""
    with open_reader(configuration.journal) as reader:
        nobody, both = (
            collect(configuration, reader, demonstrated.state, "docs-lm", seconds=1.0, news=True, sources=sources)
            for sources in (("/somebody",), ("/somebody", SOURCE))
        )
    assert (len(nobody.runs), len(both.runs)) == (0, 3)


def test_with_nothing_new_the_demo_trains_nothing(
    rewarm: "Command", demonstrated: "Chronicle", monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the third demo on nothing is delivered and no daemon is started; the table is the same."""
    monkeypatch.setattr(demo, "serving", lambda _: pytest.fail("no daemon is needed"))
    monkeypatch.setattr(demo, "mlflow_behind", lambda *_: 0)
    before = demonstrated.state.position

    first = rewarm("demo")
    second = rewarm("demo")

    assert first.code == second.code == 0
    assert "nothing new" in first.out
    assert [line for line in first.out.splitlines() if "took" not in line] == [
        line for line in second.out.splitlines() if "took" not in line
    ]
    with open_reader(demonstrated.configuration.journal) as reader:
        assert reader.head() == before


def test_the_demo_as_json(rewarm: "Command", demonstrated: "Chronicle", monkeypatch: pytest.MonkeyPatch) -> None:
    """--json prints the report alone on standard output, progress goes to standard error."""
    monkeypatch.setattr(demo, "mlflow_behind", lambda *_: 0)

    code, out, err = rewarm("demo", "--json")

    report = msgspec.json.decode(out)
    assert code == 0
    assert report["news"] is False
    assert report["champion"]["version"] == 3
    assert "nothing new" in err


def test_the_demo_needs_a_pipeline(rewarm: "Command", configuration: "Configuration") -> None:
    """Without a pipeline the demo says what is missing."""
    assert configuration.file is not None
    configuration.file.write_text("state: var\n", encoding="utf-8")

    code, _, err = rewarm("demo")

    assert code == 2
    assert "lacks a pipeline" in err


def test_starting_over_removes_what_the_configuration_names(
    demonstrated: "Chronicle", configuration: "Configuration", tmp_path: Path
) -> None:
    """Journal, runs, inbox and spool below the state folder go; everything else stays."""
    kept = tmp_path / "elsewhere"
    kept.mkdir()
    (configuration.roots[0] / "a.jsonl").touch()
    (configuration.state / "notes.txt").touch()
    outside = msgspec.structs.replace(configuration, roots=(*configuration.roots, kept))

    gone = start_over(outside)

    assert configuration.journal in gone
    assert not configuration.roots[0].exists()
    assert kept.exists()
    assert (configuration.state / "notes.txt").exists()


def test_starting_over_is_refused_while_a_daemon_runs(chronicle: "Chronicle") -> None:
    """A living daemon's journal is never removed."""
    with pytest.raises(RewarmError, match="stop it before --fresh"):
        start_over(chronicle.configuration)

    assert chronicle.configuration.journal.exists()


def test_starting_over_ends_a_stage_that_is_at_work(demonstrated: "Chronicle", configuration: "Configuration") -> None:
    """A stage that an interrupted demo left is cancelled by its stop file first."""
    from stages.run_folder import hold

    folder = configuration.state / "runs" / "docs-lm-4" / "train" / "1"
    folder.mkdir(parents=True)
    asked: list[str] = []
    ready = threading.Event()

    def stage() -> None:
        with hold(folder):
            ready.set()
            while not (folder / "stop").exists():
                pass
            asked.append((folder / "stop").read_text(encoding="ascii"))

    thread = threading.Thread(target=stage)
    thread.start()
    ready.wait()
    start_over(configuration)
    thread.join()

    assert asked in (["cancel"], [""])
    assert not folder.exists()
