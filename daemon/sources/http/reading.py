"""What can be read over HTTP: the state, the latest runs, and a run's story."""

from collections.abc import Callable
from functools import wraps

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from daemon.core.errors import JournalError
from daemon.core.state import dump
from daemon.journal.base import Reader
from daemon.sources.http.answers import answer, answer_json, later, problem
from daemon.sources.http.desk import Desk
from daemon.sources.http.gate import admit
from daemon.sources.http.runs import latest, living
from daemon.story import UnknownRun, tell
from daemon.tokens import Tokens

MOST_RUNS = 1000
USUAL_RUNS = 50


def routes(desk: Desk, tokens: Tokens) -> list[Route]:
    """Return the routes; all of them need the scope `read`."""

    def guarded(endpoint: Callable[[Request], Response]) -> Callable[[Request], Response]:
        @wraps(endpoint)
        def guard(request: Request) -> Response:
            refused = admit(request, tokens, "read")
            if isinstance(refused, Response):
                return refused
            try:
                return endpoint(request)
            except JournalError as error:
                return later(503, "not_ready", str(error))

        return guard

    def reader() -> Reader:
        if desk.reader is None:
            raise JournalError("The journal is not read here now: the daemon is starting, or does not lead.")
        return desk.reader

    def state(_request: Request) -> Response:
        return answer_json(dump(desk.state()))

    def runs(request: Request) -> Response:
        given = request.query_params.get("limit", str(USUAL_RUNS))
        limit = int(given) if given.isascii() and given.isdecimal() and len(given) < len(str(MOST_RUNS)) + 1 else 0
        if not 1 <= limit <= MOST_RUNS:
            return problem(400, "wrong_limit", f"limit is a number from 1 to {MOST_RUNS:,}.")
        return answer(latest(reader(), living(desk.state()), limit))

    def story(request: Request) -> Response:
        try:
            return answer(tell(reader(), request.path_params["run"]))
        except UnknownRun as error:
            return problem(404, "unknown_run", str(error))

    return [
        Route("/state", guarded(state)),
        Route("/runs", guarded(runs)),
        Route("/runs/{run}", guarded(story)),
    ]
