"""The HTTP side of a process through its roles: opened once, by a standby that finds its address taken later."""

import logging
import threading
from collections.abc import Callable
from typing import Final

from daemon.core.errors import RewarmError
from daemon.sources.http.front import Front
from ops.server import AddressTaken

AGAIN_SECONDS: Final = 0.1
logger = logging.getLogger("rewarm.http")


class Presence:
    """Opens the front where there is one to open (`make`), and keeps it until `close`."""

    def __init__(self, make: Callable[[], Front] | None) -> None:
        self._make = make
        self._front: Front | None = None
        self._lock = threading.Lock()
        self._announced = False
        self._closed = threading.Event()
        self.trouble = ""

    def open(self) -> None:
        """Listen; raises AddressTaken, ConfigurationError."""
        if self._make is not None and self._front is None:
            self._front = self._make()

    def open_if_free(self) -> bool:
        """Listen unless somebody else does at that address; raises ConfigurationError."""
        try:
            self.open()
        except AddressTaken as error:
            if not self.trouble:
                logger.info("Nothing is served for now.", extra={"why": str(error)})
            self.trouble = str(error)
            return False
        self.trouble = ""
        return True

    def open_when_free(self) -> None:
        """Listen now, or, in a thread, as soon as nothing is in the way: a leader without HTTP is better than none."""
        try:
            if self.open_if_free():
                return
        except RewarmError as error:  # a token's file that was good before
            self.trouble = str(error)
            logger.warning("Nothing is served for now.", extra={"why": str(error)})
        threading.Thread(target=self._keep_trying, name="listen", daemon=True).start()

    def announce(self) -> None:
        """Let this machine's command line in, now or as soon as there is a front."""
        with self._lock:
            self._announced = True
            if self._front is not None:
                self._front.announce()

    def withdraw(self) -> None:
        """Tell the command line no longer."""
        with self._lock:
            self._announced = False
            if self._front is not None:
                self._front.withdraw()

    def close(self) -> None:
        """Answer what is being asked, then serve no longer; harmless when repeated."""
        self._closed.set()
        with self._lock:
            if self._front is not None:
                self._front.withdraw()
                self._front.stop()

    def _keep_trying(self) -> None:
        while not self._closed.wait(AGAIN_SECONDS):
            with self._lock:
                try:
                    opened = not self._closed.is_set() and self.open_if_free()
                except RewarmError as error:
                    self.trouble = str(error)
                    continue
                if opened:
                    logger.info("The address is free: it is served now.")
                    if self._announced and self._front is not None:
                        self._front.announce()
                    return
