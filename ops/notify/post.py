"""One HTTP request that ends by its deadline, whatever the other side does: also when it sends a byte a second.

A socket's timeout counts for one operation; here each gets what is left of the whole.
"""

import functools
import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote, urlsplit

import msgspec

from ops.notify.message import DeliveryError, authorization, shown

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Left = Callable[[], float]
"""Returns the seconds that are left; raises TimeoutError when there are none."""
Address = tuple[Any, ...]
"""One row of what getaddrinfo answers."""
KEPT = "%/:=&?~+!$,;'@()*[]"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a target said: its status, and the seconds after which it wants to be asked again."""

    status: int
    retry_after: float | None = None


def post(url: str, content: bytes, headers: Mapping[str, str], *, timeout: float) -> Answer:
    """Send one request and return what was answered; redirects are not followed.

    Raises DeliveryError when there is no answer within `timeout` seconds in all.
    """
    left = _deadline(timeout)
    parts = urlsplit(url)
    path = quote(parts.path or "/", safe=KEPT) + (f"?{quote(parts.query, safe=KEPT)}" if parts.query else "")
    own = {"host": parts.netloc.rpartition("@")[2], "user-agent": "rewarm", "connection": "close"}
    named = {**own, **authorization(url), **headers}
    try:
        with _connect(url, left) as link:
            connection = http.client.HTTPConnection("target")  # the connection is made, and `host` given
            connection.sock = cast("socket.socket", _Link(link, left))
            connection.request("POST", path, content, named)
            answer = connection.getresponse()
            return Answer(status=answer.status, retry_after=_seconds(answer.headers.get("retry-after")))
    except TimeoutError as error:
        raise DeliveryError(f"{shown(url)} did not answer within {timeout:g} s.") from error
    except ssl.SSLError as error:
        raise DeliveryError(f"{shown(url)} gave no TLS connection: {error.reason or error}.") from error
    except OSError as error:
        raise DeliveryError(f"{shown(url)} cannot be reached: {error.strerror or error}.") from error
    except (http.client.HTTPException, ValueError) as error:
        # Its text may quote the address.
        raise DeliveryError(f"{shown(url)} gave no HTTP answer: {type(error).__name__}.") from error


class Resolver:
    """Finds addresses. The system's resolver cannot be interrupted: it is asked in a thread that may be left alone.

    One question at a time for each name, whoever waits for it: one that is never answered costs one thread, not one
    with every try.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: dict[tuple[str | None, int], Future[list[Address]]] = {}

    def __call__(self, url: str, timeout: float) -> list[Address]:
        """Return the addresses of a url's host. Raises OSError when it has none, TimeoutError when nobody says."""
        parts = urlsplit(url)
        name = (parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
        with self._lock:
            future = self._asked.get(name)
            if future is None:
                future = Future()
                threading.Thread(target=self._ask, args=(*name, future), name="resolve", daemon=True).start()
                self._asked[name] = future
        return future.result(timeout)

    def _ask(self, host: str | None, port: int, future: "Future[list[Address]]") -> None:
        try:
            found = list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            self._forget(host, port)
            future.set_exception(error if isinstance(error, OSError) else OSError(str(error)))
        else:
            self._forget(host, port)
            future.set_result(found)

    def _forget(self, host: str | None, port: int) -> None:
        """Ask anew next time: before the answer, which another try may follow at once."""
        with self._lock:
            del self._asked[host, port]


resolve: Final = Resolver()


def _deadline(timeout: float) -> Left:
    until = time.monotonic() + timeout

    def left() -> float:
        rest = until - time.monotonic()
        if rest <= 0:
            raise TimeoutError
        return rest

    return left


def _connect(url: str, left: Left) -> socket.socket:
    """Return a connection to the first address that takes one, with TLS where the url says https.

    Each gets its share of the time that is left: one that says nothing leaves enough for the next.
    """
    failed: OSError = OSError("its name has no address")
    found = resolve(url, left())
    for number, (family, kind, protocol, _, address) in enumerate(found):
        link = None
        try:
            link = socket.socket(family, kind, protocol)  # refused where the system has no such family
            link.settimeout(left() / (len(found) - number))
            link.connect(address)
            link.settimeout(left())
            if urlsplit(url).scheme == "http":
                return link
            return _context().wrap_socket(link, server_hostname=urlsplit(url).hostname)  # one timeout for all of it
        except OSError as error:
            if link is not None:
                link.close()
            failed = error
    raise failed


@functools.cache
def _context() -> ssl.SSLContext:
    return ssl.create_default_context()


class _Link:
    """As much of a socket as http.client uses."""

    def __init__(self, link: socket.socket, left: Left) -> None:
        self._link = link
        self._left = left

    def sendall(self, data: bytes) -> None:
        """Send all of it in the time that is left."""
        self._link.settimeout(self._left())
        self._link.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return a file to read the answer from."""
        return io.BufferedReader(_Reading(self._link, self._left))

    def close(self) -> None:
        """Leave the socket to whoever opened it."""


class _Reading(io.RawIOBase):
    """The bytes that come, each time waited for no longer than is left."""

    def __init__(self, link: socket.socket, left: Left) -> None:
        self._link = link
        self._left = left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        self._link.settimeout(self._left())
        return self._link.recv_into(buffer)


def _seconds(text: str | None) -> float | None:
    """Return what Retry-After says, in seconds: a number, or an instant (RFC 9110, section 10.2.3)."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
