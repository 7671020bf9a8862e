"""Who may ask what: every request shows a token, except where the machine itself is the boundary."""

from ipaddress import ip_address

from starlette.requests import Request
from starlette.responses import Response

from daemon.settings import Scope
from daemon.sources.http.answers import problem
from daemon.tokens import ANONYMOUS, Holder, Refused, Tokens

CHALLENGE = {"www-authenticate": 'Bearer realm="rewarm"'}


def admit(request: Request, tokens: Tokens, *scopes: Scope) -> Holder | Response:
    """Return who asks, if they hold one of the scopes, else the answer that says why not."""
    found = tokens.holder(_shown(request))
    if isinstance(found, Refused):
        return problem(401, found.error, found.message, CHALLENGE)
    if found.name == ANONYMOUS and not _for_this_machine(request):
        # A page in a browser on this machine can have its own name resolve to 127.0.0.1 (DNS rebinding).
        message = "Without a token the host must be called localhost or by its loopback address."
        return problem(403, "wrong_host", message)
    if not found.scopes & set(scopes):
        message = f"{found.name} has no scope {' or '.join(scopes)}, but {', '.join(sorted(found.scopes))}."
        return problem(403, "scope_missing", message)
    return found


def _shown(request: Request) -> str | None:
    """Return the token that a request shows; what is no bearer token is one that nobody knows."""
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _for_this_machine(request: Request) -> bool:
    name = request.headers.get("host", "")
    host = name[1:].partition("]")[0] if name.startswith("[") else name.rpartition(":")[0] or name
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
