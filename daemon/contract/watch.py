"""What a policy touches while it is asked: clocks, randomness, files, connections, processes.

Calls are seen by a profile function (https://docs.python.org/3/library/sys.html#sys.setprofile), what opens anything by
an audit hook (PEP 578), which also refuses it. Neither is a fence: they find mistakes, not malice.
"""

import gc
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType, FrameType
from typing import Any, Final, Literal

Touched = Literal["clock", "randomness", "outside"]

MODULES: Final[dict[str, Touched]] = {
    "time": "clock",
    "random": "randomness",
    "_random": "randomness",
    "secrets": "randomness",
    "uuid": "randomness",
    "tempfile": "outside",
    "socket": "outside",
    "subprocess": "outside",
    "logging": "outside",
    "posix": "outside",
    "os": "outside",
}
"""A module whose functions a policy may not call → what they touch."""
NAMED: Final[dict[str, Touched]] = {
    "datetime.now": "clock",
    "datetime.utcnow": "clock",
    "datetime.today": "clock",
    "date.today": "clock",
    "urandom": "randomness",
    "getrandom": "randomness",
    "print": "outside",
    "input": "outside",
    "open": "outside",
}
"""A built-in function's name → what it touches."""
STANDARD: Final = (sysconfig.get_path("stdlib"), "<frozen")
"""How the names of its files begin: who called them is told."""
ALLOWED: Final = frozenset({"fspath", "struct_time", "strftime", "strptime"})
OPENING: Final = (
    "open",
    "os.",
    "socket.",
    "subprocess.",
    "shutil.",
    "sqlite3.",
    "urllib.",
    "tempfile.",
    "http.",
    "ftplib.",
    "smtplib.",
    "pathlib.",
)
"""How the names of audit events begin that tell of files, connections and processes."""


class Touch(PermissionError):
    """Raised where a policy would open something: it is not let."""


class Watch:
    """Notes what is touched between its begin and its end; one at a time in a process."""

    _hooked: "Watch | None" = None
    _installed = False

    def __init__(self) -> None:
        self.touched: dict[Touched, str] = {}

    @contextmanager
    def over(self) -> Iterator[None]:
        """Watch the block."""
        if not Watch._installed:
            sys.addaudithook(_audit)
            Watch._installed = True
        before, collects = sys.getprofile(), gc.isenabled()
        gc.disable()  # what libraries do whenever garbage is collected is not the policy's doing
        Watch._hooked = self
        sys.setprofile(self._called)
        try:
            yield
        finally:
            sys.setprofile(before)
            Watch._hooked = None
            if collects:
                gc.enable()

    def _called(self, frame: FrameType, what: str, argument: Any) -> None:  # noqa: ANN401 - the interpreter's
        if what == "c_call":
            name = getattr(argument, "__qualname__", "")
            module = getattr(argument, "__module__", None) or _owner(argument)
            kind = NAMED.get(name) or (None if name in ALLOWED else MODULES.get(module))
            told = name if name in NAMED else f"{module}.{name}"
            if kind is not None and not _loading(frame):
                self.note(kind, told, frame)
        elif what == "call":
            module = frame.f_globals.get("__name__", "")
            name = frame.f_code.co_name
            caller = frame.f_back
            if MODULES.get(module) and name not in ALLOWED and caller is not None and not _loading(frame):
                self.note(MODULES[module], f"{module}.{name}", caller)

    def note(self, kind: Touched, what: str, frame: FrameType | None) -> None:
        """Note the first touch of its kind, and where it was."""
        while frame is not None and frame.f_code.co_filename.startswith(STANDARD) and frame.f_back is not None:
            frame = frame.f_back
        where = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "?"
        self.touched.setdefault(kind, f"{what} at {where}")


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    watch = Watch._hooked  # noqa: SLF001 - one of this module
    if watch is None or not event.startswith(OPENING):
        return
    frame = sys._getframe(1)  # noqa: SLF001 - no other way leads to the caller
    if _loading(frame):
        return
    shown = f" {arguments[0]!r}" if arguments and isinstance(arguments[0], str | bytes) else ""
    watch.note("outside", f"{event}{shown}", frame)
    raise Touch(f"A policy may not do this: {event}{shown}.")


def _owner(function: object) -> str:
    """Return the module of the object that a bound built-in belongs to: a generator's is `random`."""
    if not isinstance(function, BuiltinFunctionType):
        return ""
    owner = function.__self__
    return str(getattr(owner if isinstance(owner, type) else type(owner), "__module__", ""))


def _loading(frame: FrameType | None) -> bool:
    """Return whether a module is being imported: that reads files, and is no decision."""
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("importlib._bootstrap"):
            return True
        frame = frame.f_back
    return False
