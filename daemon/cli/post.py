"""An event's way over HTTP: the daemon's answer is at hand at once, and whose request it is the token says."""

import http.client
import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from daemon.cli.delivery import Answer, Arrival, CloudEvent
from daemon.cli.session import find_daemon
from daemon.config import Configuration
from daemon.core.errors import RewarmError
from daemon.settings import PREFIX
from daemon.sources.http.local import address, find
from daemon.tokens import SHOWABLE

VARIABLE = PREFIX + "TOKEN"
SECONDS = 30.0
LEAF = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
TYPE = "application/cloudevents+json"


class Unanswered(RewarmError):
    """HTTP gave no answer about the event; it may be sent again, this way or another."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where to send; `given`: with a token that somebody chose, so that no other way is as good."""

    url: str
    token: str
    given: bool
    certificate: Path | None = None


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of an answer that matter here."""

    outcome: Arrival | None = None
    position: int | None = None
    reason: str = ""
    message: str = ""
    error: str = ""


def find_target(
    configuration: Configuration, token_file: Path | None, environment: Mapping[str, str] = os.environ
) -> Target | None:
    """Return where events can be sent by HTTP, None where the spool is the way.

    Raises RewarmError when a token was given and cannot be used.
    """
    token = _given(token_file, environment)
    certificate = configuration.tls.certificate if configuration.tls else None
    daemon, local = find_daemon(configuration.journal), find(configuration.state)
    if local is not None and daemon.running and daemon.pid in {None, local.pid}:
        url, own = local.url, local.token
    elif token is not None:
        settings = configuration.settings.http
        if not settings.enabled or not settings.port:
            raise RewarmError(
                "A token was given, but `http` is switched off or has no fixed port; leave the token out."
            )
        url, own = address(settings.host, settings.port, secure=certificate is not None), token
    else:
        return None
    return Target(url=url, token=token or own, given=token is not None, certificate=certificate)


def post(target: Target, event: CloudEvent) -> Answer:
    """Send an event and return what became of it; raises Unanswered, and RewarmError for a token that is no good."""
    connection = connect(target.url, target.certificate, SECONDS)
    try:
        headers = {"content-type": TYPE, "authorization": f"Bearer {target.token}"}
        connection.request("POST", "/events", msgspec.json.encode(event), headers)
        response = connection.getresponse()
        status, told = response.status, msgspec.json.decode(response.read(), type=_Told)
    except (OSError, http.client.HTTPException, ValueError) as error:  # what is no JSON, or no name of a host
        raise Unanswered(f"{target.url} does not answer: {str(error) or type(error).__name__}.") from error
    finally:
        connection.close()
    if told.outcome is not None:
        return Answer(outcome=told.outcome, position=told.position, reason=told.reason, message=told.message)
    message = f"{target.url} answers {status} ({told.error}): {told.message}"
    if status in {401, 403} and target.given:
        raise RewarmError(message)
    raise Unanswered(message)


def connect(url: str, certificate: Path | None, seconds: float) -> http.client.HTTPConnection:
    """Return a connection to the daemon on this machine: its own certificate is trusted, whatever name it bears.

    That one alone: since the name is not looked at, no other one of the same authority may do.
    """
    parts = urlsplit(url)
    if parts.scheme != "https":
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=seconds)
    try:
        found = LEAF.search(certificate.read_text(encoding="ascii", errors="replace")) if certificate else None
    except OSError as error:
        raise RewarmError(f"The certificate {certificate} cannot be read: {error.strerror}.") from error
    if found is None:
        raise RewarmError(f"There is no certificate in PEM in {certificate}.")
    return _Pinned(parts.hostname or "", parts.port, seconds, ssl.PEM_cert_to_DER_cert(found[0]))


class _Pinned(http.client.HTTPSConnection):
    """A connection to whoever proves to hold the key of one certificate."""

    def __init__(self, host: str, port: int | None, seconds: float, certificate: bytes) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # compared below, before anything is sent
        super().__init__(host, port, timeout=seconds, context=context)
        self._certificate = certificate

    def connect(self) -> None:
        """Connect; raises SSLError when another certificate is shown."""
        super().connect()
        if self.sock.getpeercert(binary_form=True) != self._certificate:
            self.close()
            raise ssl.SSLError("it shows another certificate than the configured one")


def _given(file: Path | None, environment: Mapping[str, str]) -> str | None:
    """Return the token that was given by file or by environment; raises RewarmError when no header can carry it."""
    token = environment.get(VARIABLE, "").strip() if file is None else _newest(file)
    if not token:
        return None
    if not SHOWABLE.fullmatch(token.encode(errors="replace")):
        raise RewarmError(f"The token in {file or VARIABLE} is not printable ASCII without blanks.")
    return token


def _newest(file: Path) -> str:
    """Return the last line of a token's file."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise RewarmError(f"The token file {file} cannot be read: {error}.") from error
    if not lines:
        raise RewarmError(f"The token file {file} is empty.")
    return lines[-1]
