"""Schedules and the real daemon: ticks that it was not there for, and a daemon that dies while it tells them."""

import json
import signal
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from daemon.config import load
from daemon.core.events import AnyEvent, DaemonStarted, DecisionMade, Record, ScheduleFired
from daemon.journal.sqlite import open_journal
from daemon.testing import Life
from tests.acceptance.home import NOTE, Home
from tests.bench import processes

pytestmark = pytest.mark.slow

HOUR = timedelta(hours=1)
RULES = {"none": "skip", "one": "last", "each": "all"}


def configure(home: Home) -> None:
    """Write the configuration: a pipeline for each way to catch up, all with the same hourly schedule."""
    home.configure(http=True)
    content = json.loads(home.configuration.read_text(encoding="utf-8"))
    content["pipelines"] = {
        name: {
            "stages": [NOTE],
            "policies": [{"kind": "periodic_retraining", "name": "hourly", "cron": "0 * * * *", "catch_up": rule}],
        }
        for name, rule in RULES.items()
    }
    home.configuration.write_text(json.dumps(content), encoding="utf-8")


def full_hour() -> datetime:
    """Return the last full hour."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


def begin(home: Home, at: datetime) -> None:
    """Write the journal that a daemon left behind which was started then, for the first time, and died at once."""
    started = DaemonStarted(epoch=1, release="0.1.0", reducer=1, host="h", pid=1)
    events: list[AnyEvent] = [load(home.configuration).changed(), started]
    journal = open_journal(home.journal)
    with journal.transaction() as transaction:
        transaction.append(
            [
                Record(position=n, recorded_at=at, source="/rewarm/daemon", id=str(n), event=event)
                for n, event in enumerate(events, 1)
            ]
        )
    journal.close()


def fired(home: Home) -> dict[str, list[datetime]]:
    """Return for which instants ticks are recorded, by pipeline."""
    found: dict[str, list[datetime]] = {name: [] for name in RULES}
    for record in home.records():
        if isinstance(record.event, ScheduleFired):
            found[record.pipeline or ""].append(record.event.scheduled_for)
    return found


def test_a_daemon_that_dies_at_its_ticks_tells_each_of_them_once(home: Home) -> None:
    """Down over three ticks, killed before they are committed and again right after: none, one, or all; once each."""
    configure(home)
    # In an hour's last half minute another tick might come while these are looked at.
    processes.wait(lambda: datetime.now(UTC) < full_hour() + HOUR - timedelta(seconds=30), "the next hour")
    full = full_hour()
    begin(home, full - 2 * HOUR - timedelta(minutes=20))

    for boundary in ("journal.before_commit", "journal.after_commit"):
        daemon = home.start(Life(config=str(home.configuration), boundary=boundary, count=2))  # the first: its start
        assert daemon.wait(40) == -signal.SIGKILL
        told = any(fired(home).values())
        assert told is (boundary == "journal.after_commit")
    home.start()
    home.wait_for(DaemonStarted, 4)
    home.wait(lambda: home.get("/readyz")[0] == 200, "the daemon's being ready")

    assert fired(home) == {"none": [], "one": [full], "each": [full - 2 * HOUR, full - HOUR, full]}
    verdicts = [(r.pipeline, r.event.verdict) for r in home.records() if isinstance(r.event, DecisionMade)]
    assert sorted(verdicts) == [("each", "no_model"), ("one", "no_model")]

    page = text_string_to_metric_families(home.get("/metrics")[1])
    samples = {(s.name, s.labels["pipeline"]): s for family in page for s in family.samples if "_tick_" in s.name}
    last, following = "rewarm_schedule_last_tick_timestamp_seconds", "rewarm_schedule_next_tick_timestamp_seconds"
    assert {key: sample.value for key, sample in samples.items()} == {
        **{(last, name): full.timestamp() for name in ("one", "each")},
        **{(following, name): (full + HOUR).timestamp() for name in RULES},
    }
    assert {sample.labels["policy"] for sample in samples.values()} == {"hourly"}
