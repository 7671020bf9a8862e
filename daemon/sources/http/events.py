"""`POST /events`: a request's events enter in one transaction, and are answered once the journal has them."""

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from daemon.core.events import OperatorRequested
from daemon.door import Answer, Door, Input, Letter, Offer
from daemon.sources.cloudevents import BATCH, PLAIN, STRUCTURED
from daemon.sources.http import modes
from daemon.sources.http.answers import answer, later, problem
from daemon.sources.http.desk import Desk
from daemon.sources.http.gate import admit
from daemon.tokens import Holder, Tokens

STATUS = {"id_reused": 409, "too_large": 413, "not_an_operator": 403}
"""Status by the reason of a single dead letter; 400 for every other."""
KEY = re.compile(r"[!-~]{1,256}")
IN_THREAD = 64 << 10
"""Bytes from which a body is parsed beside the server's thread, which has others to answer."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds for a body to come and for the loop to answer; bytes of all bodies that have no answer yet."""

    body: float = 10.0
    loop: float = 10.0
    held: int = 64 << 20


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one event; `position` of its record, of the one that it repeats, or of its dead letter."""

    id: str | None
    source: str | None
    outcome: str
    position: int
    reason: str = ""
    message: str = ""


class Refusal(Outcome, frozen=True, kw_only=True):
    """The outcome of a single event that became a dead letter; `error` is its reason."""

    error: str


class Outcomes(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the events of a batch, in their order."""

    events: tuple[Outcome, ...]


class AllRefused(Outcomes, frozen=True, kw_only=True):
    """A batch of which every event became a dead letter."""

    error: str
    message: str


class _Names(msgspec.Struct, frozen=True, kw_only=True):
    """What a refused event calls itself."""

    id: str | None = None
    source: str | None = None


class Receiver:
    """The endpoint; one for the life of a server."""

    def __init__(self, desk: Desk, door: Door, tokens: Tokens, limits: Limits) -> None:
        self._desk = desk
        self._door = door
        self._tokens = tokens
        self._limits = limits
        self._held = 0

    async def post(self, request: Request) -> Response:
        """Take events in."""
        holder = admit(request, self._tokens, "send", "operate")
        if isinstance(holder, Response):
            return holder
        unable = self._unable()
        if unable is not None:
            return unable
        headers = request.scope["headers"]
        mode = modes.mode_of(headers)
        if mode is None:
            known = f"{STRUCTURED}, {BATCH}, {PLAIN}, or ce- headers with a JSON body"
            return problem(415, "unknown_form", f"This is no event in a form that is known: {known}.")
        key = request.headers.get("idempotency-key", "").strip().strip('"') or None
        if key is not None and not KEY.fullmatch(key):
            return problem(400, "wrong_key", "An Idempotency-Key has at most 256 printable ASCII characters, no blank.")
        read = await self._read(request, modes.largest(mode))
        if isinstance(read, Response):
            return read
        try:
            blank = Letter(
                text=b"",
                where=f"http:{holder.name}",
                source=f"/http/{holder.name}",
                id=key,
                by=holder.name if "operate" in holder.scopes else None,
                carrier=modes.carrier(headers),
            )
            offered = partial(self._offers, mode, headers, read, blank)
            offers = await run_in_threadpool(offered) if len(read) > IN_THREAD else offered()
            return _misused(holder, offers) or await self._enter(offers, batch=mode == "batch")
        except modes.TooMany:
            return problem(413, "too_many", f"A batch has at most {modes.MAX_BATCH:,} events: split it.")
        finally:
            self._held -= len(read)

    def _unable(self) -> Response | None:
        """Return why no event can be taken now, if so."""
        failing = self._desk.status().failing()
        if failing:
            why = "; ".join(f"{name}: {reason}" for name, reason in failing.items())
            return later(503, "not_ready", f"The daemon takes no events now. {why}.")
        if self._desk.inbox is None:
            return later(503, "not_ready", "The daemon takes no events now: it does not lead.")
        return None

    async def _read(self, request: Request, most: int) -> bytes | Response:
        """Return the body, or why it is not taken; what is too long is not read on.

        A body that is returned counts as held, until whoever asked has taken it off.
        """
        too_large = problem(413, "too_large", f"The body may have {most:,} bytes; send files by their uri.")
        announced = request.headers.get("content-length", "0")
        if not announced.isdecimal() or int(announced) > most:
            return too_large
        body = bytearray()
        complete = False
        try:
            async with asyncio.timeout(self._limits.body):
                async for chunk in request.stream():
                    body += chunk
                    self._held += len(chunk)
                    if len(body) > most:
                        return too_large
                    if self._held > self._limits.held:
                        return later(429, "busy", "Too much is on its way at once; send it again.")
            complete = True
            return bytes(body)
        except TimeoutError:
            message = f"The body was not complete after {self._limits.body:g} s."
            return problem(408, "too_slow", message, {"connection": "close"})
        except ClientDisconnect:
            return problem(400, "incomplete", "The body ended early.")
        finally:
            if not complete:
                self._held -= len(body)

    def _offers(self, mode: modes.Mode, headers: modes.Headers, body: bytes, blank: Letter) -> tuple[Offer, ...]:
        found = modes.letters(mode, headers, body, blank)
        return tuple(each if isinstance(each, Offer) else self._door.receive(each) for each in found)

    async def _enter(self, offers: tuple[Offer, ...], *, batch: bool) -> Response:
        """Offer everything to the loop as one input, and wait for what became of it."""
        if not offers:
            return answer(Outcomes(events=()), 202)
        loop = asyncio.get_running_loop()
        settled: asyncio.Future[Sequence[Answer] | None] = loop.create_future()

        def settle(answers: Sequence[Answer] | None) -> None:
            if not settled.done():
                settled.set_result(answers)

        def reply(answers: Sequence[Answer] | None) -> None:
            with suppress(RuntimeError):  # the server has ended
                loop.call_soon_threadsafe(settle, answers)

        inbox = self._desk.inbox
        if inbox is None or not inbox.offer(Input(offers=offers, reply=reply)):
            return self._unable() or later(429, "busy", "The queue is full; send it again.")
        try:
            async with asyncio.timeout(self._limits.loop):
                answers = await settled
        except TimeoutError:
            message = "The journal has not answered in time. Send it again: what counted already counts once."
            return later(503, "no_answer", message)
        if answers is None:
            return later(503, "not_ready", "The daemon took nothing, as when it stops; send it again.")
        outcomes = tuple(_outcome(offer, each) for offer, each in zip(offers, answers, strict=True))
        return _batch(outcomes) if batch else _single(outcomes[0])


def _misused(holder: Holder, offers: Sequence[Offer]) -> Response | None:
    """Return the answer to who may operate alone, and sent something else."""
    if "send" in holder.scopes or all(isinstance(offer.event, OperatorRequested | None) for offer in offers):
        return None
    message = f"{holder.name} has no scope send; it may send operator.requested alone."
    return problem(403, "scope_missing", message)


def _outcome(offer: Offer, told: Answer) -> Outcome:
    names = _names(offer)
    return Outcome(
        id=names.id,
        source=names.source,
        outcome=told.outcome,
        position=told.position,
        reason=told.reason,
        message=told.message,
    )


def _names(offer: Offer) -> _Names:
    if offer.refusal is None:
        return _Names(id=offer.id, source=offer.source)
    try:
        return msgspec.json.decode(offer.text or b"", type=_Names)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _Names()


def _single(outcome: Outcome) -> Response:
    if outcome.outcome != "dead_letter":
        return answer(outcome, 202)
    refusal = Refusal(error=outcome.reason, **msgspec.structs.asdict(outcome))
    return answer(refusal, STATUS.get(outcome.reason, 400))


def _batch(outcomes: tuple[Outcome, ...]) -> Response:
    refused = [outcome for outcome in outcomes if outcome.outcome == "dead_letter"]
    if not refused:
        return answer(Outcomes(events=outcomes), 202)
    if len(refused) < len(outcomes):
        return answer(Outcomes(events=outcomes), 207)
    message = "Every event of the batch was refused; each is kept as a dead letter."
    return answer(AllRefused(events=outcomes, error="all_refused", message=message), 400)
