"""Webhooks of a real daemon: signed, at least once, and nobody waits for them."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from daemon.core.events import InputRejected, ModelPromoted, RunSucceeded
from daemon.testing import Life
from tests.acceptance.home import Home
from tests.acceptance.publishing import PUBLISH
from tests.ops.notify.conftest import Receiver, Request

KEY = b"a key of thirty-two bytes length"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A target that takes everything."""
    made = Receiver()
    yield made
    made.close()


def notify(home: Home, *targets: dict[str, object]) -> None:
    """Configure a pipeline whose runs publish a model, and who is told."""
    home.configure(PUBLISH)
    content = json.loads(home.configuration.read_text(encoding="utf-8"))
    content["notify"] = list(targets)
    home.configuration.write_text(json.dumps(content), encoding="utf-8")


def target(url: str, name: str, **more: object) -> dict[str, object]:
    """Return a target that is told of models and dead letters."""
    return {"url": url, "name": name, "on": ["model.promoted", "input.rejected"], **more}


def secret(home: Home) -> Path:
    """Write the secret's file."""
    file = home.folder / "secret"
    file.write_text(f"whsec_{base64.b64encode(KEY).decode()}\n", encoding="utf-8")
    return file


def kind(request: Request) -> str:
    """Return what a target was told of."""
    return str(json.loads(request.body)["type"])


def test_a_promoted_model_and_a_dead_letter_arrive_signed(home: Home, receiver: Receiver) -> None:
    """Both are told with a signature that the receiver can verify; a kill before the cursor repeats the same id."""
    notify(home, target(receiver.url, "team", secret_file=str(secret(home))))
    daemon = home.start(Life(config=str(home.configuration), boundary="notify.after_send", count=2))
    home.arrive()
    receiver.wait(1)
    home.send(b"{broken")
    receiver.wait(2)
    assert daemon.wait(20) == -9
    home.start()
    first, second, again = receiver.wait(3)
    assert [kind(each) for each in (first, second, again)] == [
        "io.rewarm.model.promoted.v1",
        "io.rewarm.input.rejected.v1",
        "io.rewarm.input.rejected.v1",
    ]
    assert second.body == again.body
    assert second.headers["webhook-id"] == again.headers["webhook-id"] != first.headers["webhook-id"]
    for request in (first, second, again):
        sent = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
        expected = base64.b64encode(hmac.new(KEY, sent, hashlib.sha256).digest()).decode()
        assert request.headers["webhook-signature"] == f"v1,{expected}"
        assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 60
    assert b"broken" not in second.body
    promoted = next(r for r in home.records() if isinstance(r.event, ModelPromoted))
    assert json.loads(first.body)["position"] == promoted.position
    assert base64.b64encode(KEY).decode() not in home.log.read_text(encoding="utf-8")


def test_a_target_that_hangs_delays_nobody(home: Home, receiver: Receiver) -> None:
    """While one target hangs, runs end, another target is told of each, and the daemon can be stopped."""
    slow = Receiver()

    def hang(handler: BaseHTTPRequestHandler) -> None:
        slow.released.wait(30)

    slow.answers = [hang]
    notify(home, target(slow.url, "slow", timeout=60), target(receiver.url, "quick"))
    daemon = home.start()
    try:
        for number in range(2):
            home.arrive(str(number))
            home.wait_for(RunSucceeded, number + 1)
        slow.wait(1)
        home.send(b"{broken")
        home.wait_for(InputRejected)
        assert [kind(each).split(".")[2] for each in receiver.wait(3)] == ["model", "model", "input"]
        began = time.monotonic()
        assert home.stop(daemon) == 0
        assert time.monotonic() - began < 10
        assert len(slow.requests) == 1
    finally:
        slow.close()
