"""Files elsewhere: fetched, checked, gone afterwards; each fault is the input's, the credentials' or the store's."""

import gzip
import hashlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from daemon.core.errors import StageError
from daemon.core.events import AnyEvent, DataIngested, StageFailed, StageSucceeded
from daemon.core.plans import DataSettings
from stages.roots import Remote
from stages.run_folder import Arrival
from stages.training.reading import Unusable, documents, open_arrival, remote
from stages.training.reading.remote import look, size_of

if TYPE_CHECKING:
    from tests.stages.training.reading.conftest import Gated, Store

ArrivalOf = Callable[..., Arrival]
Credentials = Callable[..., Remote]
LINES = b"".join(json.dumps({"text": f"document {number}"}).encode() + b"\n" for number in range(500))


def read(arrival: Arrival, root: Remote, staging: Path, act: Callable[[], None] = lambda: None) -> int:
    """Return how many documents an arrival has; each block that comes does something."""
    with open_arrival(arrival, (root,), staging, act) as source:
        return sum(1 for _ in documents(source, arrival.format, DataSettings()))


def failure(arrival: Arrival, root: Remote, staging: Path) -> str:
    """Return the message of the stage's error, which is one that is tried again."""
    with pytest.raises(StageError) as caught:
        read(arrival, root, staging)
    assert caught.value.failure == "transient"
    return str(caught.value)


def names(folder: Path) -> list[str]:
    """Return what lies in a folder, if there is one."""
    return [path.name for path in folder.iterdir()] if folder.exists() else []


def put(store: "Store", name: str, data: bytes = LINES) -> str:
    """Put an object into the bucket, and return its url."""
    client: Any = store.client()
    client.put_object(Bucket="bucket", Key=f"in/{name}", Body=data)
    return f"s3://bucket/in/{name}"


def test_an_object_is_read_from_s3(
    store: "Store", credentials: Credentials, arrival_of: ArrivalOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In blocks, with the size and hash announced, and nothing of it is left; also under a name with blanks."""
    monkeypatch.setattr(remote, "BLOCK", 4000)
    root, url = credentials(store.options()), put(store, "a file.jsonl")
    seen: list[list[str]] = []
    arrival = arrival_of(url, bytes=len(LINES), sha256=hashlib.sha256(LINES).hexdigest())
    staging = tmp_path / "staging"
    assert read(arrival, root, staging, lambda: seen.append(names(staging))) == 500
    assert len(seen) == -(-len(LINES) // 4000)
    assert not any(seen), "a fetched file has a name"
    assert names(staging) == []
    assert size_of(url, root) == len(LINES)
    look(root)


def test_what_is_not_there_or_not_announced_is_the_inputs_fault(
    store: "Store", credentials: Credentials, arrival_of: ArrivalOf, tmp_path: Path
) -> None:
    """An object that vanished, a folder, another size, another hash: each has its reason."""
    root, url = credentials(store.options()), put(store, "deep/b.jsonl")
    empty = put(store, "empty.jsonl", b"")
    wrong = [
        (arrival_of("s3://bucket/in/gone.jsonl"), "vanished"),
        (arrival_of("s3://bucket/in/deep"), "unreadable"),
        (arrival_of(url, bytes=len(LINES) + 1), "truncated"),
        (arrival_of(url, bytes=len(LINES) - 1), "checksum"),
        (arrival_of(url, sha256="0" * 64), "checksum"),
        (arrival_of(empty), "empty"),
    ]
    for arrival, reason in wrong:
        with pytest.raises(Unusable) as caught:
            read(arrival, root, tmp_path)
        assert caught.value.reason == reason
        assert arrival.path in str(caught.value)


def test_wrong_credentials_are_told_with_their_file(
    store: "Store", credentials: Credentials, arrival_of: ArrivalOf, tmp_path: Path
) -> None:
    """Refused, missing, misspelt or readable by everybody: which root, which file, no secret, and it is tried again."""
    url = put(store, "c.jsonl")
    secret = "a-very-long-secret"
    wrong: list[tuple[dict[str, object] | str, int, str]] = [
        (store.options(key="AKIAUNKNOWN", secret=secret), 0o600, "PermissionError"),
        (store.options(secret=secret), 0o600, "PermissionError"),
        ({"secrt": secret, "client_kwargs": {"endpoint_url": store.endpoint}}, 0o600, "secrt"),
        (secret, 0o600, "no JSON object"),
        (store.options(), 0o604, "chmod"),
        (store.options(), 0o000, "cannot be read"),
    ]
    for options, mode, words in wrong:
        root = credentials(options)
        assert root.credentials
        Path(root.credentials).chmod(mode)
        if mode == 0:
            Path(root.credentials).unlink()  # the tests may run as root, who reads everything
        message = failure(arrival_of(url), root, tmp_path)
        for part in (url, root.url, root.credentials, words):
            assert part in message
        assert secret not in message
    assert read(arrival_of(url), credentials(store.options()), tmp_path) == 500, "it is read anew each time"
    with pytest.raises(StageError, match="names no credentials"):
        read(arrival_of(url), Remote(url="s3://bucket/in"), tmp_path)


EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
SLOW = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


@pytest.mark.parametrize(
    ("answers", "fault", "words"),
    [
        pytest.param(1, (400, EXPIRED), "renew the credentials", id="expired in the middle"),
        pytest.param(-1, (400, b""), "renew the credentials", id="expired before the first look"),
        pytest.param(1, (403, b""), "renew the credentials", id="taken away in the middle"),
        pytest.param(1, (503, SLOW), "cannot be read now", id="throttled"),
        pytest.param(1, (500, b""), "cannot be read now", id="out of order"),
    ],
)
def test_faults_in_the_middle_leave_nothing(
    gate: "Gated",
    credentials: Credentials,
    arrival_of: ArrivalOf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answers: int,
    fault: tuple[int, bytes],
    words: str,
) -> None:
    """Credentials that expire, and stores that fail, between two blocks: an error that is tried again, no half file."""
    monkeypatch.setattr(remote, "BLOCK", 4000)
    gate.orders.data, gate.orders.answers, gate.orders.fault = LINES, answers, fault
    quick = {"retries": {"total_max_attempts": 1}, "s3": {"addressing_style": "path"}}
    root = credentials({"key": "k", "secret": "s", "client_kwargs": {"endpoint_url": gate.url}, "config_kwargs": quick})
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    message = failure(arrival_of("s3://bucket/in/a.jsonl"), root, tmp_path / "staging")
    assert words in message
    assert ("credentials.json" in message) == (words == "renew the credentials")
    assert names(tmp_path / "staging") == []


def test_an_object_that_is_exchanged_in_the_middle_is_refused(
    gate: "Gated", credentials: Credentials, arrival_of: ArrivalOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of two versions never become one file."""
    monkeypatch.setattr(remote, "BLOCK", 4000)
    condition = b"<Error><Code>PreconditionFailed</Code><Message>At least one of the pre-conditions</Message></Error>"
    gate.orders.data, gate.orders.answers, gate.orders.fault = LINES, 1, (412, condition)
    root = credentials({"key": "k", "secret": "s", "client_kwargs": {"endpoint_url": gate.url}})
    with pytest.raises(Unusable, match="changed while it was read") as caught:
        read(arrival_of("s3://bucket/in/a.jsonl"), root, tmp_path)
    assert caught.value.reason == "checksum"


@pytest.mark.parametrize("status", [401, 403])
def test_http_is_read_as_a_stream(
    gate: "Gated", credentials: Credentials, arrival_of: ArrivalOf, tmp_path: Path, status: int
) -> None:
    """One request for all of it; a refusal, a file that is gone and a torn answer are told apart."""
    gate.orders.data = LINES
    root = credentials({"headers": {"Authorization": "Bearer long-secret-token"}}, f"{gate.url}/in")
    url = f"{gate.url}/in/a%20b.jsonl"
    assert read(arrival_of(url), root, tmp_path) == 500

    gate.orders.answers, gate.orders.fault = 0, (status, b"")
    message = failure(arrival_of(url), root, tmp_path)
    assert "renew the credentials" in message
    assert "long-secret-token" not in message
    gate.orders.answers = -1  # not even the size is told: the file is not gone for that
    assert "renew the credentials" in failure(arrival_of(url), root, tmp_path)
    with pytest.raises(StageError, match="renew the credentials"):
        size_of(url, root)

    for gone in (404, 410):
        gate.orders.answers, gate.orders.fault = -1, (gone, b"")
        with pytest.raises(Unusable, match="not there"):
            read(arrival_of(url), root, tmp_path)


def test_http_gives_the_file_as_it_lies(
    gate: "Gated", credentials: Credentials, arrival_of: ArrivalOf, tmp_path: Path
) -> None:
    """Nothing is compressed or decompressed on the way, also where a server calls a file's compression an encoding."""
    gate.orders.data, gate.orders.encoding, gate.orders.length = gzip.compress(LINES), "gzip", 0
    gate.orders.accepted = []
    arrival = arrival_of(f"{gate.url}/a.gz", sha256=hashlib.sha256(gate.orders.data).hexdigest())
    assert read(arrival, credentials({"client_kwargs": {"headers": {"X-Us": "1"}}}, gate.url), tmp_path) == 500
    assert set(gate.orders.accepted) == {"identity"}


def test_a_torn_answer_is_fetched_again(
    gate: "Gated", credentials: Credentials, arrival_of: ArrivalOf, tmp_path: Path
) -> None:
    """A connection that ends early is the store's fault, not the file's."""
    gate.orders.data = LINES

    gate.orders.torn = True
    assert "cannot be read now" in failure(arrival_of(f"{gate.url}/a"), credentials({}, gate.url), tmp_path)


def test_a_missing_library_is_the_configurations_fault(
    arrival_of: ArrivalOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trying again would not install it: the message says what does."""
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(StageError, match="pip install gcsfs") as caught:
        read(arrival_of("gs://bucket/a"), Remote(url="gs://bucket"), tmp_path)
    assert caught.value.failure == "user_error"


def test_a_stage_ingests_what_lies_elsewhere(
    store: "Store", credentials: Credentials, arrival_of: ArrivalOf, run_stage: Callable[..., list[AnyEvent]]
) -> None:
    """An arrival in S3 becomes a shard like any other; refused credentials fail the attempt and reject no data."""
    url = put(store, "ingest.jsonl")
    arrivals = (arrival_of(url, bytes=len(LINES)),)
    root = credentials(store.options(secret="wrong"))
    *_, failed = run_stage("ingest", 1, arrivals=arrivals, roots=(root,))
    assert isinstance(failed, StageFailed)
    assert failed.failure == "transient"
    assert f"renew the credentials of root {root.url} in {root.credentials}" in failed.message

    told = run_stage("ingest", 2, arrivals=arrivals, roots=(credentials(store.options()),))
    assert [event.amount.documents for event in told if isinstance(event, DataIngested)] == [500]
    assert isinstance(told[-1], StageSucceeded)


KILLED = """
import sys
from pathlib import Path
from stages.roots import Remote
from stages.run_folder import Arrival
from stages.training.reading import open_arrival
url, staging = sys.argv[1:]
arrival = Arrival(position=1, path=f"{url}/a", format="jsonl", domain="d", bytes=0, tokens=1, documents=0)
with open_arrival(arrival, (Remote(url=url),), Path(staging), lambda: None):
    pass
"""


def test_a_stage_killed_in_the_middle_leaves_nothing(gate: "Gated", tmp_path: Path) -> None:
    """SIGKILL while half of a file has come: its bytes have no name and are gone with the process."""
    gate.orders.data = bytes(1 << 22)
    gate.orders.stall, gate.orders.reached = threading.Event(), threading.Event()
    staging = tmp_path / "staging"
    process = subprocess.Popen([sys.executable, "-c", KILLED, gate.url, str(staging)], cwd=Path.cwd())
    try:
        assert gate.orders.reached.wait(30)
        held = [entry.readlink() for entry in Path(f"/proc/{process.pid}/fd").iterdir()]
        assert any(path.is_relative_to(staging) for path in held)
        process.send_signal(signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()
    assert names(staging) == []
