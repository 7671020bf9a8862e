"""Kafka clusters that tests, benches and the demo start, kill and start again; they end with whoever started them."""

import base64
import contextlib
import socket
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from kafka.errors import KafkaError

from daemon.core.errors import BrokerError
from tests.brokers.broker import Broker
from tests.brokers.node import Node, PortTaken, free_port

TRIES = 5
PLAIN = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"}


class Cluster(Broker):
    """A cluster of one or three nodes with their data below a new folder; it answers when it is made.

    `listeners` are further ones, by name, with their security protocol: they listen at localhost, at `ports[name]`.
    `settings` are further lines of each node's properties, `formatting` further options of the storage tool.
    Where `kill`, `stop`, `start`, `freeze` and `thaw` are given no node, they mean every one.
    """

    def __init__(
        self,
        folder: Path,
        nodes: int = 1,
        *,
        listeners: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
        formatting: tuple[str, ...] = (),
    ) -> None:
        self._protocols = PLAIN | dict(listeners or {})
        self._settings = dict(settings or {})
        self._taken = [self._take() for _ in range(nodes)]
        super().__init__(self._bootstrap(), replicas=nodes)
        self.nodes: list[Node] = []
        heap = "256m" if nodes == 1 else "512m"
        self.nodes = [Node(folder / str(number), partial(self._lines, number), heap) for number in range(nodes)]
        identity = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")
        try:
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda node: node.format(identity, *formatting), self.nodes))
            self._begin_first()
        except BaseException:
            self.close()
            raise

    @property
    def ports(self) -> Mapping[str, int]:
        """The first node's port of each listener."""
        return self._taken[0]

    def start(self, node: int | None = None) -> None:
        """Start what was killed or stopped, on the same data and ports; return when it takes part again."""
        chosen = [number for number in self._chosen(node) if not self.nodes[number].alive]
        deadline = time.monotonic() + 30
        while True:
            try:
                return self._begin(chosen)
            except PortTaken:
                if time.monotonic() > deadline:
                    raise

    def kill(self, node: int | None = None) -> None:
        """End processes at once, as a power cut would."""
        for number in self._chosen(node):
            self.nodes[number].kill()

    def stop(self, node: int | None = None) -> None:
        """Ask processes to end, and wait until they did."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda number: self.nodes[number].stop(), self._chosen(node)))

    def freeze(self, node: int | None = None) -> None:
        """Stop processes in mid-step: their connections stay, and nobody answers."""
        for number in self._chosen(node):
            self.nodes[number].freeze()

    def thaw(self, node: int | None = None) -> None:
        """Let frozen processes go on."""
        for number in self._chosen(node):
            self.nodes[number].thaw()

    def close(self) -> None:
        """End everything; the folder stays."""
        self.kill()
        super().close()

    def _chosen(self, node: int | None) -> list[int]:
        return list(range(len(self.nodes))) if node is None else [node]

    def _take(self) -> dict[str, int]:
        return {name: free_port() for name in self._protocols}

    def _bootstrap(self) -> str:
        return ",".join(f"127.0.0.1:{ports['PLAINTEXT']}" for ports in self._taken)

    def _begin_first(self) -> None:
        everyone = self._chosen(None)
        for _ in range(TRIES - 1):
            try:
                self._begin(everyone)
            except PortTaken:
                self.kill()
                self._taken = [self._take() for _ in everyone]
                self.address = self._bootstrap()
            else:
                return
        self._begin(everyone)

    def _begin(self, numbers: list[int]) -> None:
        for number in numbers:
            if not self.nodes[number].alive:
                self.nodes[number].launch()
        deadline = time.monotonic() + 60
        waiting = set(numbers)
        while waiting:
            for number in numbers:
                self.nodes[number].check()
            assert time.monotonic() < deadline, f"of the nodes {numbers} these do not take part: {waiting}"
            time.sleep(0.05)
            with contextlib.suppress(BrokerError, KafkaError), self.admin(timeout=2.0) as admin:
                brokers = {seen["broker_id"] for seen in admin.describe_cluster()["brokers"] if not seen["is_fenced"]}
                # A node is told to be there before it listens.
                waiting = {each for each in numbers if each + 1 not in brokers or not self._listens(each)}

    def _listens(self, number: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._taken[number]["PLAINTEXT"])) == 0

    def _lines(self, number: int) -> Mapping[str, str]:
        """Return a node's properties."""
        ports = self._taken[number]
        at = {name: f"{name}://{'127.0.0.1' if name in PLAIN else 'localhost'}:{port}" for name, port in ports.items()}
        voters = [f"{index + 1}@127.0.0.1:{taken['CONTROLLER']}" for index, taken in enumerate(self._taken)]
        copies, insync = str(len(self._taken)), str(len(self._taken) // 2 + 1)
        return {
            "process.roles": "broker,controller",
            "node.id": str(number + 1),
            "listeners": ",".join(at.values()),
            "advertised.listeners": ",".join(at[name] for name in at if name != "CONTROLLER"),
            "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in self._protocols.items()),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "controller.quorum.voters": ",".join(voters),
            "log.dirs": str(self.nodes[number].folder / "data"),
            "auto.create.topics.enable": "false",
            "default.replication.factor": copies,
            "min.insync.replicas": insync,
            "offsets.topic.replication.factor": copies,
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": insync,
            "transaction.state.log.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": insync,
            "group.initial.rebalance.delay.ms": "0",
            # a node that was killed is missed, and one that came back takes part, within a second or two
            "broker.heartbeat.interval.ms": "500",
            "broker.session.timeout.ms": "3000",
            "log.cleaner.enable": "false",
            "num.network.threads": "2",
            "num.io.threads": "4",
            **self._settings,
        }
