"""Health over HTTP: alive, ready and why not."""

import anyio.to_thread
import pytest
from prometheus_client import CollectorRegistry, Gauge
from starlette.applications import Starlette
from starlette.testclient import TestClient
from starlette.types import Message, Scope

from ops.health import Status, routes


class Daemon:
    """A daemon whose status can be set."""

    def __init__(self) -> None:
        self.status = Status(beat_age=0.1)
        registry = CollectorRegistry()
        Gauge("rewarm_log_position", "The last position.", registry=registry).set(41)
        self.application = Starlette(routes=routes(lambda: self.status, lambda: registry, beat_bound=10))


@pytest.fixture
def daemon() -> Daemon:
    """A healthy daemon."""
    return Daemon()


def test_a_healthy_daemon_answers(daemon: Daemon) -> None:
    """Alive, ready, with metrics."""
    client = TestClient(daemon.application)
    assert (client.get("/livez").status_code, client.get("/livez").text) == (200, "ok\n")
    assert client.get("/readyz").status_code == 200
    assert "rewarm_log_position 41.0" in client.get("/metrics").text
    assert client.get("/metrics").headers["content-type"].startswith("text/plain")
    assert client.post("/livez").status_code == 405


def test_a_stuck_loop_is_not_alive(daemon: Daemon) -> None:
    """The age of the loop's beat decides, and nothing else."""
    client = TestClient(daemon.application)
    daemon.status = Status(beat_age=10.5, journal="the disk is full")
    answer = client.get("/livez")
    assert answer.status_code == 503
    assert "10.5 s ago" in answer.text
    daemon.status = Status(beat_age=9.5, journal="the disk is full")
    assert client.get("/livez").status_code == 200


@pytest.mark.parametrize("check", ["standby", "journal", "replay", "drain", "disk"])
def test_every_failing_check_is_a_reason_not_to_be_ready(daemon: Daemon, check: str) -> None:
    """503 with the reason; `?verbose` lists the others too."""
    daemon.status = Status(beat_age=0.0, **{check: "because"}, degraded={"mlflow": "9 records behind"})
    client = TestClient(daemon.application)
    assert client.get("/readyz").status_code == 503
    assert client.get("/readyz").text == f"[-] {check}: because\nfailed\n"
    verbose = client.get("/readyz?verbose").text.splitlines()
    assert len(verbose) == 7
    assert f"[-] {check}: because" in verbose
    assert "[~] mlflow: 9 records behind" in verbose
    assert sum(line.startswith("[+]") for line in verbose) == 4


def test_health_waits_for_no_thread(daemon: Daemon) -> None:
    """However many slow requests occupy the server's threads, a supervisor gets its answer."""

    async def busy() -> list[int]:
        told: list[int] = []

        async def receive() -> Message:
            return {"type": "http.request"}

        async def send(message: Message) -> None:
            told.extend([message["status"]] if message["type"] == "http.response.start" else [])

        threads = anyio.to_thread.current_default_thread_limiter()
        threads.total_tokens = 1
        async with threads:
            with anyio.move_on_after(10):
                for path in ("/livez", "/readyz"):
                    scope: Scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}
                    await daemon.application(scope, receive, send)
        return told

    assert anyio.run(busy) == [200, 200]


def test_what_is_degraded_is_still_ready(daemon: Daemon) -> None:
    """A follower or a source in trouble does not take the daemon out of service."""
    daemon.status = Status(beat_age=0.0, degraded={"spool": "gone"})
    assert TestClient(daemon.application).get("/readyz").status_code == 200
