"""Bearer tokens: from a file that somebody renews, or from a token endpoint that is asked with client credentials.

https://datatracker.ietf.org/doc/html/rfc6749#section-4.4. kafka-python asks for a token whenever it connects or
proves anew who it is, on the thread that all of a client's answers wait for: tokens are kept until shortly before
they expire, and asked for once before a client is made.
"""

import base64
import json
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from email.message import Message
from functools import lru_cache
from pathlib import Path
from typing import IO, Protocol

from daemon.broker.access import Oauth
from daemon.broker.secrets import secret
from daemon.core.errors import BrokerError

EARLY = 30.0
"""Seconds before its end from which a token is not used any more, or a fifth of its life where that is shorter."""
LIFE = 300.0
"""Seconds that a token is used whose endpoint does not say how long it lives."""
FRESH = 10.0
"""Seconds for which a token is not asked for anew, though it is refused."""
LONGEST_SECONDS = 10.0
MOST_BYTES = 1 << 20
TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
"""RFC 6750's b64token."""


class Provider(Protocol):
    """What kafka-python wants for OAUTHBEARER."""

    def token(self) -> str:
        """Return a token that is valid now; raises BrokerError."""

    def extensions(self) -> dict[str, str]:
        """Return what is sent beside it."""

    def forget(self) -> None:
        """Do not use the last token again: it was refused."""


class TokenFile:
    """A token that somebody else writes into a file, read each time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def token(self) -> str:
        """Return what the file says."""
        return _checked(secret(self._path), str(self._path))

    def extensions(self) -> dict[str, str]:
        """Return nothing."""
        return {}

    def forget(self) -> None:
        """Do nothing: the file is read each time."""


class Endpoint:
    """Tokens of an endpoint; any thread may ask."""

    def __init__(
        self, oauth: Oauth, secret_file: Path, timeout: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._oauth = oauth
        self._secret_file = secret_file
        self._timeout = min(timeout, LONGEST_SECONDS)
        self._clock = clock
        self._lock = threading.Lock()
        self._token = ""
        self._until = 0.0
        self._fresh_until = 0.0

    def token(self) -> str:
        """Return the last token while it lives, else a new one."""
        with self._lock:
            if not self._token or self._clock() >= self._until:
                self._token, life = self._ask()
                now = self._clock()
                self._until = now + life - min(EARLY, life / 5)
                self._fresh_until = now + FRESH
            return self._token

    def extensions(self) -> dict[str, str]:
        """Return nothing."""
        return {}

    def forget(self) -> None:
        """Ask for another one next time, if this one is not new."""
        with self._lock:
            if self._clock() >= self._fresh_until:
                self._token = ""

    def _ask(self) -> tuple[str, float]:
        oauth = self._oauth
        words = [urllib.parse.quote(word, safe="") for word in (oauth.client_id, secret(self._secret_file))]
        form = {"grant_type": "client_credentials"} | ({"scope": oauth.scope} if oauth.scope else {})
        request = urllib.request.Request(  # noqa: S310 - the configuration accepts https, and http on this machine
            oauth.url,
            data=urllib.parse.urlencode(form).encode(),
            headers={
                "Authorization": f"Basic {base64.b64encode(':'.join(words).encode()).decode()}",
                "Accept": "application/json",
            },
        )
        try:
            with urllib.request.build_opener(_Stay).open(request, timeout=self._timeout) as answer:
                body = answer.read(MOST_BYTES)
        except urllib.error.HTTPError as error:
            raise BrokerError(f"{self._refused(error)} Are client_id, scope and {self._secret_file} right?") from error
        except OSError as error:
            reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
            raise BrokerError(f"The token endpoint {oauth.url} does not answer: {reason}.") from error
        try:
            document = json.loads(body)
            token, life = document["access_token"], document.get("expires_in")
            return _checked(token, oauth.url), LIFE if life is None else float(life)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise BrokerError(f"The token endpoint {oauth.url} answered with something that is no token.") from error

    def _refused(self, error: urllib.error.HTTPError) -> str:
        """Return what the endpoint says, by its error code alone: what else it wrote may repeat a secret."""
        with error:
            try:
                code = json.loads(error.read(MOST_BYTES))["error"]
            except (ValueError, TypeError, LookupError, OSError):
                code = ""
        known = f" ({code})" if isinstance(code, str) and re.fullmatch(r"[a-z_]{1,40}", code) else ""
        return f"The token endpoint {self._oauth.url} answered {error.code}{known}."


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: our credentials are for the configured address alone."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        """Return nothing, which makes the redirect an error."""


@lru_cache(maxsize=32)
def provider(oauth: Oauth, timeout: float) -> Provider:
    """Return where tokens come from; the same for all clients, so that they share one token."""
    from kafka.net.sasl.oauth import AbstractTokenProvider

    made: Provider
    if oauth.token_file is not None:
        made = TokenFile(oauth.token_file)
    elif oauth.secret_file is not None:
        made = Endpoint(oauth, oauth.secret_file, timeout)
    else:
        raise BrokerError("OAUTHBEARER needs a token_file, or url, client_id and secret_file.")
    AbstractTokenProvider.register(type(made))
    return made


def _checked(token: str, origin: str) -> str:
    if not TOKEN.fullmatch(token):
        raise BrokerError(f"What {origin} gives is no bearer token: it has characters that no token has.")
    return token
