"""Schedules on the command line: what is refused, what comes next, and the retrain that a tick brought."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemon.config import Configuration, load
from daemon.core.events import DecisionMade, RunStarted, ScheduleFired
from daemon.journal.base import scan
from daemon.journal.sqlite import open_reader

if TYPE_CHECKING:
    from tests.daemon.cli.conftest import Chronicle, Command

POLICY = 'kind: periodic_retraining, name: weekly, cron: "{}", timezone: {}'
CONFIGURATION = """
pipelines:
  docs-lm:
    policies:
      - {kind: rewarm_replay, after_tokens: 200_000}
      - {POLICY}
      - {kind: promotion, max_forgetting: 0.02}
"""


def write(folder: Path, cron: str = "0 3 * * sun", zone: str = "Europe/Berlin") -> None:
    """Write a configuration with a schedule."""
    policy = POLICY.format(cron, zone)
    (folder / "rewarm.yaml").write_text(CONFIGURATION.replace("POLICY", policy), encoding="utf-8")


@pytest.fixture
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configuration:
    """A configuration with a schedule, in the working directory."""
    write(tmp_path)
    (tmp_path / "var" / "inbox").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return load()


def tick(chronicle: "Chronicle") -> datetime:
    """Tell a tick of the schedule, as the clock would; return what it was scheduled for."""
    scheduled = chronicle.pipeline.schedules["weekly"]
    at = (scheduled.last or datetime(2026, 3, 1, 2, tzinfo=UTC)) + timedelta(days=7)
    fired = ScheduleFired(
        policy="weekly",
        specification=scheduled.specification,
        scheduled_for=at,
        cron="0 3 * * sun",
        timezone="Europe/Berlin",
    )
    chronicle.tell(fired, source="/rewarm/clock", id=f"tick:docs-lm/weekly:{scheduled.specification}:{at.isoformat()}")
    return at


@pytest.mark.parametrize(
    ("cron", "zone", "told"),
    [
        ("0 0 30 2 *", "UTC", "cron: '0 0 30 2 *' never fires: no month of these has such a day"),
        ("0 3 * * 0", "UTC", "cron: '0 3 * * 0' names the day of the week by a number"),
        ("* * * * * *", "UTC", "cron: '* * * * * *' has 6 fields; it needs 5: minute, hour, day, month"),
        ("@daily", "UTC", "cron: '@daily' has 1 field"),
        ("61 * * * *", "UTC", "the minute '61' is not understood"),
        ("0 3 * * sun", "Mars/Base", "timezone: there is no time zone 'Mars/Base'; use a name of the tz database"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_a_users_mistake(
    rewarm: "Command", tmp_path: Path, cron: str, zone: str, told: str
) -> None:
    """Exit status 2, and one line that names file, pipeline, policy and key, what is wrong and what to write."""
    write(tmp_path, cron, zone)
    result = rewarm("check-config")
    assert result.code == 2
    assert "rewarm.yaml: pipelines.docs-lm: policy 'weekly': " in result.err
    assert told in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_a_zone_without_a_schedule_is_a_users_mistake(rewarm: "Command", tmp_path: Path) -> None:
    """How a calendar is read says nothing where there is none: a forgotten `cron` is told."""
    file = tmp_path / "rewarm.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace('cron: "0 3 * * sun", ', ""), encoding="utf-8")
    result = rewarm("check-config")
    assert result.code == 2
    assert "pipelines.docs-lm.policies.1.periodic_retraining" in result.err
    assert "give `cron` too" in result.err


def test_status_and_plan_tell_the_next_tick(rewarm: "Command", trained: "Chronicle") -> None:
    """What ticked last, what ticks next, and that a tick is due which a daemon would have told."""
    now = datetime.now(UTC)
    status = json.loads(rewarm("status", "--json").out)["pipelines"]["docs-lm"]["schedules"]
    plan = json.loads(rewarm("plan", "--json").out)["schedules"]["docs-lm"]
    for (schedule,) in (status, plan):
        following = datetime.fromisoformat(schedule.pop("next"))
        assert now < following < now + timedelta(days=8)
        assert following.weekday() == 6
        assert schedule == {
            "policy": "weekly",
            "cron": "0 3 * * sun",
            "timezone": "Europe/Berlin",
            "last": None,
            "due": 1,
        }
    for command in ("status", "plan"):
        out = rewarm(command).out
        assert f"weekly: 0 3 * * sun (Europe/Berlin), next {following:%Y-%m-%d %H:%M:%S}Z; 1 tick due" in out
    assert trained.pipeline.schedules["weekly"].last is None


def test_a_tick_is_told_and_kept(rewarm: "Command", chronicle: "Chronicle") -> None:
    """Before there is a model it passes; its line names the schedule; the status knows it as the last one."""
    at = tick(chronicle)
    line = f"weekly: 0 3 * * sun (Europe/Berlin), due {at:%Y-%m-%d %H:%M:%S}Z"
    assert line in rewarm("events", "--kind", "schedule.fired").out
    assert f"last {at:%Y-%m-%d %H:%M:%S}Z" in rewarm("status").out
    verdict = chronicle.pipeline.verdicts["weekly"]
    assert verdict.verdict == "no_model"
    assert not chronicle.pipeline.wishes


def test_a_tick_waits_for_the_slot_and_brings_one_retrain(rewarm: "Command", chronicle: "Chronicle") -> None:
    """While an increment goes on the wish stands, whatever arrives; then one retrain runs, and says why."""
    chronicle.arrive("prose", 900_000, id="prose-1")
    chronicle.train()
    chronicle.arrive("code", 600_000, id="code-2")
    increment = chronicle.pipeline.active
    assert increment is not None
    at = tick(chronicle)
    tick(chronicle)
    for number in range(3):
        chronicle.arrive("code", 1_000, id=f"more-{number}")
        assert set(chronicle.pipeline.wishes) == {"weekly"}
    chronicle.train({"prose": 0.004, "code": -0.8}, shift=0.9)
    retrain = chronicle.pipeline.active
    assert retrain is not None
    assert (retrain.policy, retrain.plan.kind, retrain.plan.start.kind) == ("weekly", "retrain", "base")
    tick(chronicle)
    assert chronicle.pipeline.verdicts["weekly"].verdict == "running"
    chronicle.train({"prose": -0.2, "code": -0.2})
    assert (chronicle.pipeline.active, chronicle.pipeline.wishes) == (None, {})
    chronicle.arrive("prose", 1_000, id="last")
    assert chronicle.pipeline.active is None
    chronicle.close()

    with open_reader(chronicle.configuration.journal) as reader:
        events = [record.event for record in scan(reader)]
    assert [e.plan.kind for e in events if isinstance(e, RunStarted)] == ["base", "increment", "retrain"]
    said = [e for e in events if isinstance(e, DecisionMade) and e.policy == "weekly" and e.verdict == "due"]
    assert [e.suppressed_by for e in said] == [f"run {increment.run} is active"]
    assert f"The schedule '0 3 * * sun' fired for {at.isoformat()}" in rewarm("explain", retrain.run).out
