"""The HTTP side of a process for its whole life: tokens, server, and the word for this machine's command line."""

import logging

from daemon.config import Configuration
from daemon.door import Door
from daemon.sources.http.application import Count, application, uncounted
from daemon.sources.http.desk import Desk
from daemon.sources.http.files import check
from daemon.sources.http.local import announce, withdraw
from ops.server import Certificate, Handle, serve

logger = logging.getLogger("rewarm.http")


class Front:
    """Serves from the start on; what the desk does not hold yet is answered by 503.

    Raises AddressTaken, ConfigurationError.
    """

    def __init__(
        self, configuration: Configuration, desk: Desk, door: Door, *, release: str, count: Count = uncounted
    ) -> None:
        http = configuration.settings.http
        self._state = configuration.state
        self._secure = http.tls is not None
        self._tokens = check(configuration)
        made = application(desk, door, self._tokens, release=release, count=count)
        self._handle: Handle = serve(made, http.host, http.port, certificate=_certificate(configuration))
        if not http.local and not configuration.tokens:
            message = "No token is configured, and other machines may ask: nobody but this machine's command line can."
            logger.warning(message, extra={"host": http.host})

    def announce(self) -> None:
        """Let this machine's command line in, from now on."""
        try:
            handle = self._handle
            announce(self._state, self._tokens, host=handle.host, port=handle.port, secure=self._secure)
        except OSError as error:
            logger.warning("The command line cannot be told of HTTP; it uses the spool.", extra={"error": str(error)})

    def withdraw(self) -> None:
        """Tell the command line no longer; what it sends all the same is answered."""
        withdraw(self._state)

    def stop(self) -> None:
        """Answer what is being asked, then close."""
        self._handle.stop()


def _certificate(configuration: Configuration) -> Certificate | None:
    tls = configuration.tls
    return None if tls is None else Certificate(certificate=tls.certificate, key=tls.key)
