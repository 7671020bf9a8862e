"""SIGTERM and SIGINT: the first asks the process to end in order, the second ends it at once; SIGHUP: to read again."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

ENDING: Final = (signal.SIGTERM, signal.SIGINT)
Handler = Callable[..., object] | int | None


class Asked:
    """Whether this process was asked to end; while it is entered, the two signals mean just that.

    SIGHUP never ends it: it asks for the configuration to be read again.

    They are read in a thread of their own: no lock that the main thread holds can be waited for by a handler, and
    a main thread that hangs in a call of the system does not keep the second signal from ending the process.
    """

    def __init__(self, end: Callable[[int], object] = os._exit) -> None:
        self._end = end
        self._event = threading.Event()
        self._actions: list[Callable[[], object]] = []
        self._hung_up = False
        self._reload: Callable[[], object] | None = None
        self._before: dict[int, Handler] = {}
        self._wakeup = -1

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)  # noqa: FBT003 - the library's signature
        threading.Thread(target=self._read, name="signals", daemon=True).start()
        for number in (*ENDING, signal.SIGHUP):  # without a handler in Python a signal does what it does by itself
            self._before[number] = signal.signal(number, lambda *_: None)
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._writer.close()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait until the process is asked to end, at most so long; return whether it is."""
        return self._event.wait(seconds)

    def then(self, action: Callable[[], object]) -> None:
        """Call `action` when the process is asked to end, at once if it is already; twice must be harmless."""
        self._actions.append(action)
        if self._event.is_set():
            action()

    def then_reload(self, action: Callable[[], object]) -> None:
        """Call `action` with each SIGHUP, at once if one has come already: once too often is harmless."""
        self._reload = action
        if self._hung_up:
            action()

    def _read(self) -> None:
        with self._reader, contextlib.suppress(OSError):
            while number := self._reader.recv(1):
                if number[0] == signal.SIGHUP:
                    self._hung_up = True
                    if self._reload is not None:
                        self._reload()
                if number[0] not in ENDING:
                    continue
                if self._event.is_set():
                    self._end(128 + number[0])
                    return
                self._event.set()
                for action in self._actions:
                    action()
