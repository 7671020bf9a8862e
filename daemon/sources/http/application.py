"""The daemon's pages put together: events in, state and runs out, health, metrics, and what all of it promises."""

import asyncio
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from daemon.door import Door
from daemon.sources.http import reading
from daemon.sources.http.answers import answer, broken, later, unserved
from daemon.sources.http.desk import Desk
from daemon.sources.http.events import Limits, Receiver
from daemon.tokens import Tokens
from ops import health

Count = Callable[[str, int], None]
"""Told of every answer: the route's path, and the status."""


def uncounted(_path: str, _status: int) -> None:
    """Count nothing."""


def application(
    desk: Desk,
    door: Door,
    tokens: Tokens,
    *,
    release: str = "",
    count: Count = uncounted,
    limits: Limits | None = None,
) -> Starlette:
    """Return the application; what the desk holds is read anew with every request."""
    receiver = Receiver(desk, door, tokens, limits or Limits())

    def openapi(_request: Request) -> Response:
        from daemon.sources.http.openapi import document  # made for whoever asks, who are few

        return answer(document(release, sorted(door.pipelines)))

    routes = [
        Route("/events", receiver.post, methods=["POST"]),
        *reading.routes(desk, tokens),
        Route("/openapi.json", openapi),
        *health.routes(lambda: desk.status(), lambda: desk.registry),  # noqa: PLW0108 - the desk's of that moment
    ]
    made = Starlette(routes=routes, exception_handlers={HTTPException: unserved, Exception: broken})
    made.router.redirect_slashes = False
    made.middleware_stack = Outermost(made.build_middleware_stack(), count)
    return made


class Outermost:
    """Around all of it: counts answers, our own mistakes too, and answers what the server gives up.

    Counted is by route and status; a path that is no route counts as `other`.
    """

    def __init__(self, app: ASGIApp, count: Count) -> None:
        self._app = app
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count its answer."""
        begun = False

        async def counted(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                route = scope.get("route")
                self._count(route.path if isinstance(route, Route) else "other", message["status"])
            await send(message)

        try:
            await self._app(scope, receive, counted)
        except asyncio.CancelledError:  # the server stops, and has waited long enough
            if not begun:
                stopping = later(503, "not_ready", "The daemon stopped before it had an answer; send it again.")
                await stopping(scope, receive, counted)
