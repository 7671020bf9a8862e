"""The daemon's health over HTTP: /livez and /readyz for supervisors, /metrics for Prometheus.

Alive means that the loop beats; a broken broker or a full disk never restarts the daemon. Ready means that it
can take facts. Supervisors go by the status code, `?verbose` lists the checks.
"""

from collections.abc import Callable
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

BEAT_BOUND: Final = 30.0
"""Seconds without a beat of the loop after which the daemon counts as stuck."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How the daemon is: age of the loop's last beat in seconds, and for each check why it fails ("" passes).

    `degraded` names what does not work though the daemon is ready: a source, a follower.
    """

    beat_age: float
    journal: str = ""
    replay: str = ""
    drain: str = ""
    disk: str = ""
    standby: str = ""
    degraded: dict[str, str] = {}

    def failing(self) -> dict[str, str]:
        """Return the checks of readiness that fail, with their reasons."""
        return {name: reason for name, reason in self.checks().items() if reason}

    def checks(self) -> dict[str, str]:
        """Return all checks of readiness with their reasons."""
        return {
            "standby": self.standby,
            "journal": self.journal,
            "replay": self.replay,
            "drain": self.drain,
            "disk": self.disk,
        }


def routes(
    status: Callable[[], Status], registry: Callable[[], CollectorRegistry], *, beat_bound: float = BEAT_BOUND
) -> list[Route]:
    """Return the routes; the functions are called with every request, from the server's threads.

    Those for supervisors run in the server's own one: they wait for no slow request that occupies the others.
    """

    async def livez(request: Request) -> Response:
        age = status().beat_age
        late = f"the loop's last beat was {age:.1f} s ago, more than {beat_bound:g} s" if age > beat_bound else ""
        return _answer(request, {"loop": late}, {})

    async def readyz(request: Request) -> Response:
        now = status()
        return _answer(request, now.checks(), now.degraded)

    def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry()), headers={"content-type": content_type})

    return [Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)]


def _answer(request: Request, checks: dict[str, str], degraded: dict[str, str]) -> Response:
    failing = {name: reason for name, reason in checks.items() if reason}
    lines = [f"[-] {name}: {reason}" for name, reason in failing.items()]
    if "verbose" in request.query_params:
        lines = [f"[-] {name}: {reason}" if reason else f"[+] {name}" for name, reason in checks.items()]
        lines += [f"[~] {name}: {reason}" for name, reason in degraded.items()]
    lines.append("failed" if failing else "ok")
    return PlainTextResponse("\n".join(lines) + "\n", 503 if failing else 200, {"cache-control": "no-store"})
