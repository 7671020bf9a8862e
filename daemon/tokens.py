"""Named tokens: who may do what over HTTP. Their secrets lie in files, which are read again when they change."""

import hashlib
import hmac
import logging
import os
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from daemon.core.errors import ConfigurationError
from daemon.files import open_to_all
from daemon.settings import Scope, TokenSettings

SHORTEST = 16
SHOWABLE = re.compile(rb"[!-~]+")
"""What an Authorization header carries unchanged."""
ALL: frozenset[Scope] = frozenset({"send", "operate", "read"})
ANONYMOUS = "anonymous"
logger = logging.getLogger("rewarm.tokens")


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who stands behind a request, and what they may do."""

    name: str
    scopes: frozenset[Scope]


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """Why a token is not taken: a stable word, and a sentence."""

    error: str
    message: str


class Tokens:
    """The configured tokens, and at most one that the daemon made for its own machine's command line.

    Raises ConfigurationError when a token's file cannot be used. `open_to_all` lets whoever has no token send
    and read: right where nobody but this machine can ask, and no token is configured.
    """

    def __init__(
        self,
        settings: Sequence[TokenSettings],
        *,
        open_to_all: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tokens = [_Token(each) for each in settings]
        self._open = open_to_all and not settings
        self._now = now
        self._local: tuple[bytes, Holder] | None = None
        named: dict[bytes, str] = {}
        for token in self._tokens:
            for digest in token.load():
                other = named.setdefault(digest, token.settings.name)
                if other != token.settings.name:
                    raise ConfigurationError(
                        f"tokens: {other} and {token.settings.name} have the same content; each needs its own."
                    )

    def admit_local(self, secret: str, holder: Holder) -> None:
        """Take one more token, which the configuration does not name."""
        self._local = (_digest(secret.encode()), holder)

    def holder(self, secret: str | None) -> Holder | Refused:
        """Return who holds a token; None: no token was shown."""
        if secret is None:
            if self._open:
                return Holder(name=ANONYMOUS, scopes=frozenset({"send", "read"}))
            how = "" if self._tokens else " None is configured: add one to `tokens` in rewarm.yaml."
            message = "A token is needed, as the header `Authorization: Bearer TOKEN`." + how
            return Refused(error="token_missing", message=message)
        shown = _digest(secret.encode())
        found: Holder | Refused | None = None
        if self._local is not None and hmac.compare_digest(self._local[0], shown):
            found = self._local[1]
        for token in self._tokens:  # all, whichever fits: how long it takes says little
            fits = any(hmac.compare_digest(known, shown) for known in token.current())
            if fits and found is None:
                found = self._standing(token.settings)
        return found or Refused(error="token_unknown", message="The token is not known.")

    def _standing(self, settings: TokenSettings) -> Holder | Refused:
        if settings.expires is not None and settings.expires <= self._now():
            message = f"The token {settings.name} expired at {settings.expires.isoformat()}."
            return Refused(error="token_expired", message=message)
        return Holder(name=settings.name, scopes=frozenset(settings.scopes))


class _Token:
    """A token's file: one secret a line, so that during a rotation the old one may stand beside the new one."""

    def __init__(self, settings: TokenSettings) -> None:
        self.settings = settings
        self._known: tuple[tuple[int, ...] | None, tuple[bytes, ...]] = (None, ())

    def load(self) -> tuple[bytes, ...]:
        """Return the digests of the secrets in the file; raises ConfigurationError when it cannot be used."""
        where = f"tokens.{self.settings.name}"
        signature = None
        digests: tuple[bytes, ...] = ()
        try:
            signature = _signature(self.settings.file)
            secrets = secrets_in(self.settings.file, where)
            if not all(map(SHOWABLE.fullmatch, secrets)):
                message = f"{where}.file: a token in {self.settings.file} is not printable ASCII without blanks."
                raise ConfigurationError(message)
            digests = tuple(map(_digest, secrets))
        except OSError as error:
            message = f"{where}.file: {self.settings.file} cannot be read: {error.strerror}."
            raise ConfigurationError(message) from error
        finally:
            # In one step, since requests load in several threads: an older content never stays under a newer signature.
            self._known = (signature, digests)
        return digests

    def current(self) -> tuple[bytes, ...]:
        """Return the digests, read again if the file has changed; none while it cannot be used."""
        try:
            signature = _signature(self.settings.file)
        except OSError:
            signature = None
        known, digests = self._known
        if signature == known:
            return digests
        try:
            digests = self.load()
        except ConfigurationError as error:
            logger.warning("A token cannot be read.", extra={"token": self.settings.name, "error": str(error)})
            return ()
        logger.info("A token was read again.", extra={"token": self.settings.name})
        return digests


def secrets_in(file: Path, where: str) -> list[bytes]:
    """Return the secrets in a file, one a line; raises ConfigurationError, and OSError when it cannot be read."""
    if (wrong := open_to_all(file)) is not None:
        raise ConfigurationError(f"{where}.file: {wrong}")
    secrets = [line.strip() for line in file.read_bytes().splitlines() if line.strip()]
    if not secrets:
        raise ConfigurationError(f"{where}.file: {file} is empty; it holds the token, such as `openssl rand -hex 32`.")
    if any(len(secret) < SHORTEST for secret in secrets):
        raise ConfigurationError(
            f"{where}.file: a token in {file} is shorter than {SHORTEST} bytes: it can be guessed."
        )
    return secrets


def _signature(file: Path) -> tuple[int, ...]:
    found = os.stat(file)  # noqa: PTH116 - beside the module of that name
    return found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
