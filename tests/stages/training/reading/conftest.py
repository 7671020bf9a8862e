"""Files to read, and stores to read them from: a real S3 that asks for credentials, and one that fails when told."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar, NamedTuple

import pytest

from stages.roots import Remote
from stages.run_folder import Arrival
from stages.training.reading import Source

BUCKET = "bucket"
POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}


@pytest.fixture
def source_of(tmp_path: Path) -> Callable[..., Source]:
    """Give bytes as an opened source."""

    def make(data: bytes, name: str = "file") -> Source:
        path = tmp_path / name
        path.write_bytes(data)
        return Source(path=path, sha256="", bytes=len(data), name=name)

    return make


@pytest.fixture
def arrival_of() -> Callable[..., Arrival]:
    """Give an arrival of a path or url; keywords are what was announced."""

    def make(path: Path | str, **announced: object) -> Arrival:
        given = {"format": "jsonl", "bytes": 0, "tokens": 1, "documents": 0, **announced}
        return Arrival(position=1, path=str(path), domain="prose", **given)  # type: ignore[arg-type]

    return make


class Store(NamedTuple):
    """An S3 of this test run: where it is, and keys that it lets in."""

    endpoint: str
    key: str
    secret: str

    def options(self, **given: object) -> dict[str, object]:
        """Return storage options that it lets in, but for what is given."""
        return {"key": self.key, "secret": self.secret, "client_kwargs": {"endpoint_url": self.endpoint}, **given}

    def client(self, service: str = "s3") -> object:
        """Return a client of a service."""
        import boto3  # type: ignore[import-untyped]

        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name="us-east-1",
        )


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    """Serve an S3 with a bucket, which checks keys and signatures."""
    import requests
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    people = Store(endpoint, "any", "any").client("iam")
    people.create_user(UserName="rewarm")  # type: ignore[attr-defined]
    people.put_user_policy(UserName="rewarm", PolicyName="p", PolicyDocument=json.dumps(POLICY))  # type: ignore[attr-defined]
    made = people.create_access_key(UserName="rewarm")["AccessKey"]  # type: ignore[attr-defined]
    found = Store(endpoint, made["AccessKeyId"], made["SecretAccessKey"])
    found.client().create_bucket(Bucket=BUCKET)  # type: ignore[attr-defined]
    requests.post(f"{endpoint}/moto-api/reset-auth", data=b"0", timeout=10).raise_for_status()
    yield found
    server.stop()


@pytest.fixture
def credentials(tmp_path: Path) -> Callable[..., Remote]:
    """Write storage options into a file, and give the root that they open: (options, url)."""

    def write(options: object, url: str = f"s3://{BUCKET}/in") -> Remote:
        file = tmp_path / "credentials.json"
        file.write_text(json.dumps(options))
        file.chmod(0o600)
        return Remote(url=url, credentials=str(file))

    return write


class Gate(BaseHTTPRequestHandler):
    """A store of one file: as many GETs are answered as `answers` says, then the fault; None of it stalls."""

    data: ClassVar[bytes] = b""
    answers: ClassVar[int] = 1 << 30
    fault: ClassVar[tuple[int, bytes] | None] = None
    ranges: ClassVar[bool] = True
    stall: ClassVar[threading.Event | None] = None
    reached: ClassVar[threading.Event | None] = None
    torn: ClassVar[bool] = False
    length: ClassVar[int | None] = None
    encoding: ClassVar[str] = ""
    accepted: ClassVar[list[str | None]] = []
    etag: ClassVar[str] = '"one"'

    def do_HEAD(self) -> None:
        """Tell the size."""
        if self.answers < 0 and self.fault:
            self._send(self.fault[0], b"")
        else:
            self._send(200, b"", size=len(self.data) if self.length is None else self.length)

    def do_GET(self) -> None:
        """Give a range, or all."""
        gate = type(self)
        gate.answers -= 1
        self.accepted.append(self.headers.get("Accept-Encoding"))
        if gate.answers < 0 and self.fault:
            self._send(*self.fault)
            return
        asked = self.headers.get("Range") if self.ranges else None
        if asked:
            first, last = asked.removeprefix("bytes=").split("-")
            part = self.data[int(first) : int(last) + 1]
            self._send(206, part, extra={"Content-Range": f"bytes {first}-{last}/{len(self.data)}"})
            return
        half = len(self.data) // 2
        self._send(200, self.data[:half], size=len(self.data))
        if self.torn:
            self.close_connection = True
            return
        if self.stall is not None and self.reached is not None:
            self.reached.set()
            self.stall.wait(30)
        self.wfile.write(self.data[half:])

    def _send(self, status: int, body: bytes, size: int | None = None, extra: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if size is None else size))
        self.send_header("ETag", self.etag)
        if self.encoding:
            self.send_header("Content-Encoding", self.encoding)
        for name, value in (extra or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Gated(NamedTuple):
    """A served gate: its class, whose attributes are its orders, and its address."""

    orders: type[Gate]
    url: str


@pytest.fixture
def gate() -> Iterator[Gated]:
    """Serve a store that fails when it is told to."""

    class Orders(Gate):
        """The orders of one test."""

    orders = Orders
    server = ThreadingHTTPServer(("127.0.0.1", 0), orders)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield Gated(orders, f"http://127.0.0.1:{server.server_port}")
    if orders.stall is not None:
        orders.stall.set()
    server.shutdown()
    server.server_close()
    thread.join()
