"""What the source's tests have: consumers that return often, for the end of a test waits for them."""

import pytest

from daemon.sources.kafka import source, watch, worker


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten what is waited for."""
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(watch, "HINT_SECONDS", 0.05)
    monkeypatch.setattr(watch, "SOONEST_SECONDS", 0.02)
    monkeypatch.setattr(watch, "BLIND_SECONDS", 0.05)
    monkeypatch.setattr(source, "TELL_SECONDS", 0.03)
