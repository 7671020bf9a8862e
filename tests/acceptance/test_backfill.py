"""A real daemon is asked to use a period again."""

import subprocess
import sys

from daemon.core.events import DataArrived, OperatorRequested, RunStarted, RunSucceeded
from tests.acceptance.home import PATIENCE, Home
from tests.bench.targets import ROOT


def test_a_run_takes_the_period_again_and_says_so(home: Home) -> None:
    """`rewarm backfill` makes what a run has used pending: another run takes it, and `explain` tells by whom."""
    home.start()
    home.arrive()
    home.wait_for(RunSucceeded)
    home.request("backfill", since="2020-01-01T00:00:00Z", until="2100-01-01T00:00:00Z", reason="once more")
    home.wait_for(RunSucceeded, 2)
    first, second = (record for record in home.records() if isinstance(record.event, RunStarted))
    (asked,) = (record for record in home.records() if isinstance(record.event, OperatorRequested))
    assert isinstance(first.event, RunStarted)
    assert isinstance(second.event, RunStarted)
    assert second.event.plan.new == first.event.plan.new
    assert second.cause == asked.position
    assert len(home.events(DataArrived)) == 1
    command = [sys.executable, "-m", "daemon", "--config", str(home.configuration), "explain", second.event.run]
    told = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=PATIENCE, check=True).stdout
    assert f"once more, {asked.recorded_at:%Y-%m-%d %H:%M:%S}Z (#{asked.position})" in " ".join(told.split())
