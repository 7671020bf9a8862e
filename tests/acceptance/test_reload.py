"""A real daemon that reads its configuration again: what it takes, and what it leaves."""

import json
import signal
import subprocess
import sys

from daemon.core.events import ConfigurationChanged, DataArrived, DecisionMade, OperatorRequested, RunStarted
from tests.acceptance.home import PATIENCE, Home
from tests.bench.targets import ROOT

READ = "The configuration file was read again."
BROKEN = "The configuration file cannot be used"


def reload(home: Home) -> "subprocess.CompletedProcess[str]":
    """Run `rewarm reload`."""
    command = [sys.executable, "-m", "daemon", "--config", str(home.configuration), "reload", "--json"]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=PATIENCE, check=False)


def changes(home: Home) -> list[tuple[str, str | None]]:
    """Return each change of the configuration, with who asked for it."""
    records = {record.position: record for record in home.records()}
    found = []
    for record in records.values():
        if isinstance(record.event, ConfigurationChanged):
            asked = records[record.cause].event if record.cause else None
            found.append((record.event.hash, asked.by if isinstance(asked, OperatorRequested) else None))
    return found


def test_a_lower_threshold_starts_a_run_without_a_restart(home: Home) -> None:
    """SIGHUP: a broken file changes nothing, one as before appends nothing, another one counts at once, journaled."""
    home.configure(after_tokens=10**9)
    daemon = home.start()
    home.arrive()
    home.wait_for(DataArrived)
    before = home.records()
    whole = home.configuration.read_text(encoding="utf-8")
    home.configuration.write_text("pipelines: [", encoding="utf-8")
    daemon.send_signal(signal.SIGHUP)
    home.wait(lambda: home.logged(BROKEN), "the daemon's word on a broken file")
    refused = reload(home)
    assert (refused.returncode, "rewarm.yaml" in refused.stderr) == (2, True)
    home.configuration.write_text(whole, encoding="utf-8")
    daemon.send_signal(signal.SIGHUP)
    home.wait(lambda: home.logged(READ), "the daemon's word on the same file")
    assert home.records() == before
    home.configure(after_tokens=1)
    daemon.send_signal(signal.SIGHUP)
    home.wait_for(RunStarted)
    assert [by for _, by in changes(home)] == [None, "SIGHUP"]
    assert daemon.poll() is None


def test_a_new_pipeline_is_known_at_the_door_and_shadow_turns_to_act(home: Home) -> None:
    """`rewarm reload`: the answer names what needs a restart, and nothing of that is taken."""
    home.configure(http=True)
    shadow = json.loads(home.configuration.read_text(encoding="utf-8"))
    shadow["pipelines"]["one"]["policies"][0]["mode"] = "shadow"
    home.configuration.write_text(json.dumps(shadow), encoding="utf-8")
    home.start()
    home.arrive()
    home.wait_for(DataArrived)
    home.wait(lambda: home.get("/readyz")[0] == 200, "the daemon to be ready")
    assert home.events(DecisionMade)[-1].shadow
    assert home.events(RunStarted) == []
    home.configure(pipelines=("one", "two"), http=True, executor={"slots": 3, "drain_seconds": 1})
    done = reload(home)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["changed"], told["needs_restart"]) == (True, ["executor.drain_seconds"])
    assert told["event"]["way"] == "http"
    assert '"two"' in home.get("/openapi.json")[1]  # the door of HTTP is another one
    home.arrive("2", pipeline="two")
    home.wait_for(RunStarted, condition=lambda event: event.run.startswith("one-"))
    home.wait_for(RunStarted, condition=lambda event: event.run.startswith("two-"))
    assert home.fold().slots == 3
    again = json.loads(reload(home).stdout)
    assert again["changed"] is False
    assert len(changes(home)) == 2
