"""The state, the runs and their stories over HTTP; and what is not served."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from starlette.testclient import TestClient

from daemon.config import load
from daemon.core.errors import JournalError
from daemon.journal.memory import MemoryJournal
from daemon.journal.sqlite import open_reader
from daemon.sources.http import runs
from daemon.sources.http.runs import latest, living
from daemon.story import tell
from tests.daemon.cli.conftest import CONFIGURATION, Chronicle
from tests.daemon.sources.http.site import URL, Site, event


@pytest.fixture
def chronicle(tmp_path: Path) -> Iterator[Chronicle]:
    """A journal on disk, to be written."""
    file = tmp_path / "rewarm.yaml"
    file.write_text(CONFIGURATION, encoding="utf-8")
    written = Chronicle(load(file))
    yield written
    written.close()


def test_the_state_is_the_folds(site: Site) -> None:
    """`/state` is the state of the last commit; nobody in between keeps it."""
    site.post(event())
    answer = site.client.get("/state")
    assert answer.json()["position"] == 2
    assert answer.headers["cache-control"] == "no-store"


def test_what_is_not_there_is_told_as_json(site: Site) -> None:
    """404 for a path or a run, 405 with what would be allowed; the count knows no path but the routes'."""
    unknown = site.client.get("/nothing/here")
    assert (unknown.status_code, unknown.json()["error"]) == (404, "not_found")
    assert site.client.get("/events/").status_code == 404
    run = site.client.get("/runs/one-7")
    assert (run.status_code, run.json()["error"]) == (404, "unknown_run")
    wrong = site.client.get("/events")
    assert (wrong.status_code, wrong.json()["error"], wrong.headers["allow"]) == (405, "method_not_allowed", "POST")
    assert site.counted == [("other", 404), ("other", 404), ("/runs/{run}", 404), ("/events", 405)]


def test_a_mistake_of_ours_is_told_without_its_trace(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 as JSON; what happened is in the log alone."""
    monkeypatch.setattr(site.desk, "state", lambda: 1 // 0)
    client = TestClient(site.application, base_url=URL, raise_server_exceptions=False)
    answer = client.get("/state")
    assert (answer.status_code, answer.json()["error"]) == (500, "internal_error")
    assert "division" not in answer.text
    assert site.counted == [("/state", 500)]


@pytest.mark.parametrize("limit", ["0", "1001", "x", "-1", "", "²", "9" * 40])
def test_a_limit_is_a_number_within_bounds(site: Site, limit: str) -> None:
    """400 for every other one."""
    assert site.client.get("/runs", params={"limit": limit}).json()["error"] == "wrong_limit"


def test_while_there_is_no_journal_to_read_runs_are_not_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with Retry-After: while the daemon starts or stands by, and when the journal cannot be read."""
    site.desk.reader = None
    answer = site.client.get("/runs")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")

    class Broken(MemoryJournal):
        def head(self) -> int:
            raise JournalError("gone")

    site.desk.reader = Broken()
    assert site.client.get("/runs").json() == {"error": "not_ready", "message": "gone"}


def test_a_run_is_told_as_explain_tells_it(site: Site, chronicle: Chronicle) -> None:
    """`/runs/RUN` is what `rewarm explain RUN --json` shows, value by value."""
    chronicle.arrive("prose", 900_000, id="prose-1")
    run = chronicle.train()
    with open_reader(chronicle.configuration.journal) as reader:
        site.desk.reader = reader
        assert site.client.get(f"/runs/{run}").content == msgspec.json.encode(tell(reader, run))


def test_runs_are_listed_newest_first(chronicle: Chronicle, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as asked for, each with how it ended, however far back they lie."""
    monkeypatch.setattr(runs, "WINDOW", 4)
    chronicle.arrive("prose", 900_000, id="prose-1")
    first = chronicle.train()
    chronicle.arrive("code", 600_000, id="code-2")
    second = chronicle.train({"prose": 0.5, "code": -0.8}, shift=0.9)
    chronicle.arrive("law", 600_000, id="law-3")
    active = chronicle.pipeline.active
    assert active is not None
    with open_reader(chronicle.configuration.journal) as reader:
        alive = living(chronicle.state)
        assert alive == {active.run: "active"}
        listed = latest(reader, alive, 50).runs
        assert [(each.run, each.kind, each.outcome) for each in listed] == [
            (active.run, "increment", "active"),
            (second, "increment", "rejected"),
            (first, "base", "promoted"),
        ]
        assert listed[0].ended_at is None
        assert listed[1].ended_at is not None
        assert [each.run for each in latest(reader, alive, 2).runs] == [active.run, second]


def test_a_run_that_lives_is_listed_however_old(chronicle: Chronicle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other pipelines' runs do not push it off the list."""
    monkeypatch.setattr(runs, "WINDOW", 1)
    chronicle.arrive("prose", 900_000, id="prose-1")
    first = chronicle.train()
    chronicle.arrive("code", 600_000, id="code-2")
    second = chronicle.train({"prose": 0.004, "code": -0.8}, shift=0.9)
    with open_reader(chronicle.configuration.journal) as reader:
        listed = latest(reader, {first: "held"}, 1).runs
    assert [(each.run, each.outcome) for each in listed] == [(second, "promoted"), (first, "held")]
