"""What a target is sent: a CloudEvent, signed as the Standard Webhooks specification says."""

import base64
import hashlib
import hmac
import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from daemon.core.events import InputRejected, ModelPromoted, Record
from daemon.core.plans import Checkpoint
from ops.notify import message
from ops.notify.message import DeliveryError, authorization, headers, read_keys, shown, sign

AT = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
PROMOTED = ModelPromoted(
    run="docs-lm-9",
    stage="promote",
    attempt=1,
    model_version=3,
    path="models/docs-lm/v3",
    sha256="ab" * 32,
    trunk=Checkpoint(path="models/docs-lm/v3/trunk", sha256="cd" * 32),
    parent=2,
    spans=(),
    losses={"prose": 1.25},
)


def record(event: ModelPromoted | InputRejected, pipeline: str | None = "docs-lm") -> Record:
    """Make a record of an event."""
    return Record(
        position=42, recorded_at=AT, source="/s", id="i", event=event, pipeline=pipeline, text=b"SECRET {broken"
    )


def test_a_record_becomes_a_cloudevent() -> None:
    """All that CloudEvents asks for is there, the event as data, the position beside it, and the same bytes again."""
    body = message.body("journal-1", record(PROMOTED))
    told = json.loads(body)
    assert told.pop("data")["model_version"] == 3
    assert told == {
        "specversion": "1.0",
        "id": "journal-1/42",
        "type": "io.rewarm.model.promoted.v1",
        "source": "/rewarm",
        "subject": "docs-lm",
        "time": "2026-03-01T12:30:00Z",
        "datacontenttype": "application/json",
        "position": 42,
    }
    assert body == message.body("journal-1", record(PROMOTED))


def test_what_was_received_stays_in_the_journal() -> None:
    """A dead letter tells its reason and place, not its text; without a pipeline there is no subject."""
    event = InputRejected(reason="malformed", message="The text is no JSON.", where="a.json:1")
    body = message.body("journal-1", record(event, None))
    assert b"SECRET" not in body
    assert "subject" not in json.loads(body)
    assert json.loads(body)["data"]["reason"] == "malformed"


def test_the_signature_is_that_of_the_specification() -> None:
    """The example of the specification's reference libraries gives their signature."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', key)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_headers_without_and_with_two_keys() -> None:
    """No key, no signature; two keys, two of them, each as it would be alone."""
    assert "webhook-signature" not in headers("id", 7, b"body", ())
    told = headers("id", 7, b"body", (b"old", b"new"))
    assert told["webhook-timestamp"] == "7"
    assert told["webhook-signature"] == f"{sign('id', 7, b'body', b'old')} {sign('id', 7, b'body', b'new')}"
    expected = base64.b64encode(hmac.new(b"new", b"id.7.body", hashlib.sha256).digest()).decode()
    assert told["webhook-signature"].endswith(f" v1,{expected}")


def test_secrets_in_files(tmp_path: Path) -> None:
    """A line is a key; with whsec_ it is the base64 of one; without a file there is none."""
    file = tmp_path / "secret"
    file.write_text("  whsec_AAEC \n\nplain text\n", encoding="utf-8")
    assert read_keys(file) == (b"\0\1\2", b"plain text")
    assert read_keys(None) == ()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        *((b"", "is empty"), (b"\n \n", "is empty"), (b"whsec_\n", "nothing after it")),
        *((b"whsec_!!", "no base64"), (b"\xff", "no text")),
    ],
)
def test_secrets_that_cannot_be_used(tmp_path: Path, content: bytes, why: str) -> None:
    """The message names the file and never the content."""
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(DeliveryError, match=why) as caught:
        read_keys(file)
    assert str(file) in str(caught.value)
    assert "!!" not in str(caught.value)
    with pytest.raises(DeliveryError, match="No such file"):
        read_keys(tmp_path / "other")


def test_addresses() -> None:
    """A name and password become a header; what is shown of an address holds neither them nor path or query."""
    url = "https://ann:p%40ss@hooks.example:8443/T0/secret?key=secret"
    assert authorization(url) == {"authorization": f"Basic {base64.b64encode(b'ann:p@ss').decode()}"}
    assert authorization("https://hooks.example") == {}
    assert shown(url) == "https://hooks.example:8443"


def test_the_pages_receiver_verifies() -> None:
    """The receiver on the page takes what we sign, with either of two keys, and nothing else."""
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "notify.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    module: dict[str, Any] = {}
    exec(block, module)  # noqa: S102 - the page's own code
    verify = module["verify"]
    now = int(time.time())
    told = headers("id/7", now, b"body", (b"old", b"new"))
    assert verify(told, b"body", b"old")
    assert verify(told, b"body", b"new")
    assert not verify(told, b"other", b"new")
    assert not verify(told, b"body", b"another")
    assert not verify(headers("id/7", now, b"body", ()), b"body", b"new")
    assert not verify(headers("id/7", now - 3600, b"body", (b"new",)), b"body", b"new")
