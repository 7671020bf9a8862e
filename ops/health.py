"""The daemon over HTTP: /livez and /readyz for supervisors, /metrics for Prometheus, /state for people.

Alive means that the loop beats; a broken broker or a full disk never restarts the daemon. Ready means that it
can take facts. Supervisors go by the status code, `?verbose` lists the checks.
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Final

import msgspec
import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from daemon.core.errors import RewarmError

BEAT_BOUND: Final = 30.0
"""Seconds without a beat of the loop after which the daemon counts as stuck."""
STOP_PATIENCE: Final = 5.0


class AddressTaken(RewarmError):
    """Nothing can listen at the configured address."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How the daemon is: age of the loop's last beat in seconds, and for each check why it fails ("" passes).

    `degraded` names what does not work though the daemon is ready: a source, a follower.
    """

    beat_age: float
    journal: str = ""
    replay: str = ""
    drain: str = ""
    disk: str = ""
    degraded: dict[str, str] = {}

    def failing(self) -> dict[str, str]:
        """Return the checks of readiness that fail, with their reasons."""
        return {name: reason for name, reason in self.checks().items() if reason}

    def checks(self) -> dict[str, str]:
        """Return all checks of readiness with their reasons."""
        return {"journal": self.journal, "replay": self.replay, "drain": self.drain, "disk": self.disk}


def routes(
    status: Callable[[], Status],
    registry: CollectorRegistry,
    state_json: Callable[[], bytes],
    *,
    beat_bound: float = BEAT_BOUND,
) -> list[Route]:
    """Return the routes; the functions are called with every request, from the server's thread."""

    def livez(request: Request) -> Response:
        age = status().beat_age
        late = f"the loop's last beat was {age:.1f} s ago, more than {beat_bound:g} s" if age > beat_bound else ""
        return _answer(request, {"loop": late}, {})

    def readyz(request: Request) -> Response:
        now = status()
        return _answer(request, now.checks(), now.degraded)

    def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": content_type})

    def state(_request: Request) -> Response:
        return Response(state_json(), media_type="application/json")

    return [
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
        Route("/state", state),
    ]


def application(
    status: Callable[[], Status],
    registry: CollectorRegistry,
    state_json: Callable[[], bytes],
    *,
    beat_bound: float = BEAT_BOUND,
) -> Starlette:
    """Return an application with these routes alone."""
    return Starlette(routes=routes(status, registry, state_json, beat_bound=beat_bound))


def _answer(request: Request, checks: dict[str, str], degraded: dict[str, str]) -> Response:
    failing = {name: reason for name, reason in checks.items() if reason}
    lines = [f"[-] {name}: {reason}" for name, reason in failing.items()]
    if "verbose" in request.query_params:
        lines = [f"[-] {name}: {reason}" if reason else f"[+] {name}" for name, reason in checks.items()]
        lines += [f"[~] {name}: {reason}" for name, reason in degraded.items()]
    lines.append("failed" if failing else "ok")
    return PlainTextResponse("\n".join(lines) + "\n", 503 if failing else 200, {"cache-control": "no-store"})


class Handle:
    """A server in a thread of its own; `port` is the one that it got where 0 was asked for."""

    def __init__(self, server: uvicorn.Server, listener: socket.socket) -> None:
        self._server = server
        self._listener = listener
        self.port: int = listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, name="rewarm-http", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        self._server.run(sockets=[self._listener])

    def stop(self) -> None:
        """Answer what is being asked, then close; harmless when repeated."""
        self._server.should_exit = True
        self._thread.join(STOP_PATIENCE)
        with contextlib.suppress(OSError):
            self._listener.close()


def serve(application: Starlette, host: str, port: int) -> Handle:
    """Serve in a background thread, without signal handlers; the address is taken before this returns.

    Raises AddressTaken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise AddressTaken(
            f"http: {host}:{port} cannot be listened at ({error.strerror}): change http.port, or stop who holds it."
        ) from error
    config = uvicorn.Config(
        application,
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    return Handle(uvicorn.Server(config), listener)
