"""kafka-python's connections, mended where they would hang, leak or keep silent; measured with kafka-python 3.0.12.

- Whatever keeps a client from its first answer (a wrong password, a certificate, a closed port) is logged and tried
  again until the time-out, which then says "Unable to bootstrap". Here the cause is told, and at once where trying
  again is of no use.
- A failed client leaves its thread, its event loop and its sockets behind: its close() believes it is closed already.
- A refused connection leaves its socket behind (until the garbage collector comes: one each for as long as a broker
  is away), and so does a failed TLS handshake.
- A TLS handshake that is not answered is waited for without end, and the time-out of the bootstrap with it.
- What a broker says before it closes is thrown away where both come together: "invalid credentials" for the most part.
- After a failed authentication it connects again without a pause.
- Of several addresses it draws the next one by lot, and waits for one that has just failed while others are not tried.
"""

import socket
import ssl
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from kafka import errors
from kafka.future import Future
from kafka.net.compat import KafkaNetClient
from kafka.net.inet import KafkaNetSocket, create_connection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

from daemon.broker.causes import hopeless
from daemon.core.errors import BrokerError

SETUP_MS = 10_000
TRIES = 2
"""How often each address is tried before a client gives up where another attempt could help."""

T = TypeVar("T")
Explain = Callable[[BaseException], str]
"""Says in plain words, without the cluster's name, what an error means and what to do."""


class Client(KafkaNetClient):  # type: ignore[misc] # the library has no types
    """What consumers, producers and admin clients talk through: the argument `kafka_client` of each."""

    def __init__(self, explain: Explain, **configuration: Any) -> None:  # noqa: ANN401 - as the library has them
        net = NetworkSelector(**configuration)
        super().__init__(net=net, manager=Connections(net, explain, **configuration), **configuration)

    def open(self, deadline: float) -> None:
        """Begin to work, on a thread of its own; raises BrokerError when the cluster cannot be used until then."""
        self._net.start()
        self._manager.bootstrap(_ms_until(deadline))

    def run(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what a coroutine returns, run on the thread that does the work."""
        result: T = self._net.run(function)
        return result

    def ask(self, request: object, deadline: float, node_id: int | None = None) -> Future:
        """Send a request, from a coroutine, to a broker or to any; it ends at the deadline (of the monotonic clock)."""
        try:
            return self._manager.send(request, node_id, request_timeout_ms=_ms_until(deadline))
        except errors.KafkaError as error:  # as for a broker that is not known any more
            return Future().failure(error)

    async def within(self, future: Future, deadline: float) -> Any:  # noqa: ANN401 - as the library has it
        """Return the answer; raises a KafkaError, at the deadline at the latest."""
        return await self._manager.wait_for(future, _ms_until(deadline))


class Connections(KafkaConnectionManager):  # type: ignore[misc] # as above
    """The connections of a client; they know why the cluster could not be reached."""

    def __init__(self, net: NetworkSelector, explain: Explain, **configuration: Any) -> None:  # noqa: ANN401 - as above
        setup = min(SETUP_MS, configuration["request_timeout_ms"])
        super().__init__(net, **configuration, socket_connection_setup_timeout_ms=setup)
        self._explain = explain
        self._addresses = self.cluster.bootstrap_brokers()
        self.cluster.bootstrap_brokers = self._untried  # from these it draws by lot
        self._failures: dict[object, list[BaseException]] = {}
        self._failed: set[object] = set()

    def bootstrap(self, timeout_ms: float | None = None, refresh: bool = True) -> None:  # noqa: FBT001, FBT002 - as the library has it
        """Return when the cluster has answered; after a BrokerError the client is closed."""
        try:
            self._net.run(self._bounded, timeout_ms, refresh)
        except Exception as error:
            cause = self._cause()
            self.close()
            self._net.close()
            if isinstance(cause, BrokerError):
                raise BrokerError(str(cause)) from cause
            servers = self.config["bootstrap_servers"]
            named = servers if isinstance(servers, str) else ", ".join(servers)
            raise BrokerError(
                f"The Kafka cluster at {named} cannot be used: {self._explain(cause or error)}"
            ) from error

    def get_connection(self, node_id: object, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as above
        """Return a connection, begun if there is none; why it failed is kept."""
        if not self.bootstrapped and (cause := self._given_up()) is not None:
            raise cause
        known = node_id in self._conns
        connection = super().get_connection(node_id, *arguments, **options)
        if not known:
            self._failed.discard(node_id)
            connection.close_future.add_errback(lambda error: self._lost(node_id, error))
        return connection

    def reset_backoff(self, node_id: object) -> None:
        """Forget that a node could not be reached, unless it just was not: a refused authentication counts."""
        if node_id in self._failed:
            self._failed.discard(node_id)
            self.update_backoff(node_id)
        else:
            super().reset_backoff(node_id)

    async def _bounded(self, timeout_ms: float | None, refresh: bool) -> None:  # noqa: FBT001 - as above
        await self.wait_for(self.bootstrap_async(timeout_ms, refresh), timeout_ms)

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:  # noqa: ANN401 - as above
        address = node.host, node.port, self.config["socket_options"]
        sock = await create_connection(self._net, *address, proxy_url=self.config["proxy_url"], timeout_at=timeout_at)
        if not self.ssl_enabled:
            return Plain(self._net, sock, host=node.host)
        transport = Secured(self._net, sock, host=node.host, ssl_context=self.config["ssl_context"])
        try:
            await transport.shake_hands(timeout_at)
        except BaseException:
            transport.close()
            raise
        return transport

    def _lost(self, node_id: object, error: BaseException) -> None:
        self._failed.add(node_id)
        if (tokens := self.config["sasl_oauth_token_provider"]) is not None and hopeless(error):
            tokens.forget()
        if not self.bootstrapped:
            self._failures.setdefault(node_id, []).append(error)

    def _given_up(self) -> BaseException | None:
        """Return why no address is worth another attempt, None while one is."""
        for broker in self._addresses:
            failures = self._failures.get(broker.node_id, [])
            if len(failures) < TRIES and not any(map(hopeless, failures)):
                return None
        return self._cause()

    def _untried(self) -> list[Any]:
        """Return the addresses that have failed least often."""
        counts = [len(self._failures.get(broker.node_id, ())) for broker in self._addresses]
        return [broker for broker, count in zip(self._addresses, counts, strict=True) if count == min(counts)]

    def _cause(self) -> BaseException | None:
        """Return the failure that says most."""
        failures = [error for each in self._failures.values() for error in each]
        return next(filter(hopeless, failures), failures[-1] if failures else None)


class Plain(KafkaTCPTransport):  # type: ignore[misc] # as above
    """A connection without TLS."""

    def _sock_recv(self) -> tuple[bytes, Exception | None]:
        data, error = super()._sock_recv()
        return data, None if data else error  # the next call gives the error again


class Secured(KafkaSSLTransport):  # type: ignore[misc] # as above
    """A connection with TLS."""

    def _sock_recv(self) -> tuple[bytes, Exception | None]:
        data, error = super()._sock_recv()
        return data, None if data else error  # as above

    async def shake_hands(self, timeout_at: float | None) -> None:
        """Agree on how to speak; raises KafkaConnectionError, with ssl's own error as its cause."""
        while True:
            try:
                self._sock.do_handshake()
                return
            except ssl.SSLWantReadError:
                await self._net.wait_read(self._sock, timeout_at=timeout_at)
            except ssl.SSLWantWriteError:
                await self._net.wait_write(self._sock, timeout_at=timeout_at)
            except OSError as error:
                raise errors.KafkaConnectionError(f"Handshake failed: {error}") from error


class Direct(KafkaNetSocket):  # type: ignore[misc] # as above
    """Connects without a proxy; chosen by `proxy_url`, for that is how the library takes another class of sockets."""

    SCHEMES = ("rewarm-direct",)

    async def sock_connect(
        self, net: NetworkSelector, sock: socket.socket, sockaddr: tuple[object, ...], timeout_at: float | None = None
    ) -> socket.socket:
        """Return the connected socket; one that could not be connected is closed."""
        try:
            await super().sock_connect(net, sock, sockaddr, timeout_at=timeout_at)
        except BaseException:
            sock.close()
            raise
        return sock


def _ms_until(deadline: float) -> float:
    return max(1.0, (deadline - time.monotonic()) * 1000)
