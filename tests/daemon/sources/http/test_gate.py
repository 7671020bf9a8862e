"""Who is let in: tokens, scopes, and the machine's own boundary."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from daemon.settings import TokenSettings
from daemon.tokens import Tokens
from tests.daemon.sources.http.site import SECRETS, Site, event

GUARDED = ["/state", "/runs", "/runs/one-1"]
OPEN = ["/livez", "/readyz", "/metrics", "/openapi.json"]


@pytest.mark.parametrize("path", GUARDED)
def test_reading_needs_the_scope(guarded: Site, path: str) -> None:
    """401 with a challenge without a token or with a wrong one, 403 without the scope, else the page."""
    client = guarded.client
    without = client.get(path)
    assert (without.status_code, without.json()["error"]) == (401, "token_missing")
    assert without.headers["www-authenticate"].startswith("Bearer")
    for wrong in ("Bearer wrong", "Basic " + SECRETS["reader"], "Bearer", "Bearer café"):
        answer = client.get(path, headers={b"authorization": wrong.encode()})
        assert (answer.status_code, answer.json()["error"]) == (401, "token_unknown")
    answer = client.get(path, headers={"authorization": f"Bearer {SECRETS['sender']}"})
    assert (answer.status_code, answer.json()["error"]) == (403, "scope_missing")
    assert client.get(path, headers={"authorization": f"bearer {SECRETS['reader']}"}).status_code in {200, 404}


@pytest.mark.parametrize("path", OPEN)
def test_health_metrics_and_the_description_are_open(guarded: Site, path: str) -> None:
    """Supervisors and Prometheus need no token."""
    assert guarded.client.get(path, headers={"host": "anything.example"}).status_code == 200


def test_an_expired_token_says_so(tmp_path: Path) -> None:
    """401 `token_expired`, and nothing of the request is recorded."""
    file = tmp_path / "token"
    file.write_text(SECRETS["sender"], encoding="utf-8")
    file.chmod(0o600)
    settings = TokenSettings(name="ci", file=file, scopes=("send",), expires=datetime(2026, 1, 1, tzinfo=UTC))
    site = Site(tmp_path, Tokens([settings])).start()
    status, told = site.post(event(), token="sender")
    assert (status, told["error"]) == (401, "token_expired")
    assert "ci expired at 2026-01-01" in told["message"]
    assert site.records() == []
    site.stop()


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8420", "127.0.0.1:8420", "127.3.2.1", "[::1]:8420", "LOCALHOST"]
)
def test_this_machine_needs_no_token_while_none_is_configured(site: Site, host: str) -> None:
    """Whoever calls it by a name that only this machine has may send and read, but not operate."""
    assert site.client.get("/state", headers={"host": host}).status_code == 200
    status, told = site.post(event(kind="operator.requested", data={"verb": "pause"}))
    assert (status, told["error"]) == (403, "not_an_operator")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8420", "localhost.evil.example", "10.0.0.1", "[::2]", ""]
)
def test_a_name_that_was_made_to_point_here_is_refused(site: Site, host: str) -> None:
    """A web page that had its own name resolve to this machine reads and sends nothing."""
    answer = site.client.get("/state", headers={"host": host})
    assert (answer.status_code, answer.json()["error"]) == (403, "wrong_host")
    assert site.client.post("/events", content=b"{}", headers={"host": host}).status_code == 403


def test_without_tokens_other_machines_are_not_let_in(tmp_path: Path) -> None:
    """Where the address is not this machine's alone, the answer says to configure a token."""
    site = Site(tmp_path, Tokens((), open_to_all=False))
    status, told = site.post(event())
    assert (status, told["error"]) == (401, "token_missing")
    assert "`tokens`" in told["message"]
