"""What an HTTP server asks: for the whole life of the process, while the parts change with the daemon's role."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry

from daemon.core.state import State
from daemon.journal.base import Reader
from daemon.sources.queue import Inbox
from ops.health import Status


class Desk:
    """The parts of the daemon that answer requests; every request reads them anew, from the server's thread.

    Without an `inbox` no event is taken (a standby, or the journal is being folded), without a `reader` no run
    is told of.
    """

    def __init__(
        self,
        *,
        status: Callable[[], Status],
        registry: CollectorRegistry,
        state: Callable[[], State],
        inbox: Inbox | None = None,
        reader: Reader | None = None,
    ) -> None:
        self.status = status
        self.registry = registry
        self.state = state
        self.inbox = inbox
        self.reader = reader
