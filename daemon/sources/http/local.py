"""The token that a daemon makes for the command line on its own machine, in a file that its user alone can read."""

import contextlib
import os
import pwd
import secrets
from pathlib import Path

import msgspec

from daemon.tokens import ALL, Holder, Tokens

NAME = "http.json"
# What a server may bind to, and where it is asked then. `localhost` may also lead to ::1, where it does not listen.
ASKED = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1", "localhost": "127.0.0.1"}  # noqa: S104 - as said


class Local(msgspec.Struct, frozen=True, kw_only=True):
    """Where a daemon can be asked from its own machine, and the token that it takes until it ends."""

    url: str
    token: str
    pid: int


def announce(state: Path, tokens: Tokens, *, host: str, port: int, secure: bool) -> None:
    """Make a token, let it in with every scope, and leave it for whoever may read this user's files."""
    local = Local(url=address(host, port, secure=secure), token=secrets.token_urlsafe(32), pid=os.getpid())
    tokens.admit_local(local.token, Holder(name=_user(), scopes=ALL))
    state.mkdir(parents=True, exist_ok=True)
    hidden = state / f".{NAME}.{local.pid}"
    hidden.unlink(missing_ok=True)
    descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(local))
    hidden.replace(state / NAME)


def withdraw(state: Path) -> None:
    """Take this process's file away, if it is there."""
    local = find(state)
    if local is not None and local.pid == os.getpid():
        with contextlib.suppress(OSError):
            (state / NAME).unlink()


def find(state: Path) -> Local | None:
    """Return what a daemon left, None when there is nothing that this user can read."""
    try:
        return msgspec.json.decode((state / NAME).read_bytes(), type=Local)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def address(host: str, port: int, *, secure: bool) -> str:
    """Return the address under which a server that listens there is reached from its own machine."""
    host = ASKED.get(host, host)
    return f"{'https' if secure else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _user() -> str:
    """Return who owns this process; a user without a name has a number."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
