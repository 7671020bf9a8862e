"""Targets of `notify` on the command line: how far they are, whether they can be reached, and no secret shown."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemon.core.events import InputRejected
from daemon.journal.sqlite import open_reader
from ops.notify.cursor import Cursor, cursor_file, write_cursor

if TYPE_CHECKING:
    from daemon.config import Configuration
    from tests.daemon.cli.conftest import Chronicle, Command

NOTIFY = """
notify:
  - {name: team, url: "https://ann:password@127.0.0.1:9/T0/password", on: [input.rejected], secret_file: secret}
  - {name: open, url: "http://localhost:9/"}
"""


@pytest.fixture
def told(chronicle: "Chronicle", tmp_path: Path) -> None:
    """A journal with a dead letter that `team` has not been told of, two records before the head."""
    with open_reader(chronicle.configuration.journal) as reader:
        cursor = Cursor(journal=reader.identity(), position=reader.head())
    write_cursor(cursor_file(tmp_path / "var", "team"), cursor)
    chronicle.tell(InputRejected(reason="malformed", message="It is no JSON.", where="x:1"), pipeline=None)
    chronicle.tell(InputRejected(reason="malformed", message="It is no JSON.", where="x:2"), pipeline=None)
    chronicle.close()
    file = tmp_path / "rewarm.yaml"
    file.write_text(file.read_text(encoding="utf-8") + NOTIFY, encoding="utf-8")


def test_status_tells_how_far_targets_are(told: None, rewarm: "Command") -> None:
    """A target with a cursor is so many records behind; one that no daemon has met yet is not."""
    followers = json.loads(rewarm("status", "--json").out)["followers"]
    assert followers["notify:team"] == {"behind": 2}
    assert followers["notify:open"] == {"behind": 0}
    assert "notify:team" in rewarm("status").out


def test_doctor_looks_at_targets(told: None, rewarm: "Command", tmp_path: Path) -> None:
    """A secret that cannot be read is wrong, an unsigned target a note; neither shows what may be secret."""
    result = rewarm("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(result.out)["checks"]}
    assert checks["notify team"]["level"] == "wrong"
    assert str(tmp_path / "secret") in checks["notify team"]["message"]
    assert checks["notify open"]["level"] == "note"
    (tmp_path / "secret").write_text("hush", encoding="utf-8")
    result = rewarm("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(result.out)["checks"]}
    assert (checks["notify team"]["level"], checks["notify team"]["message"]) == ("ok", "https://127.0.0.1:9, signed")
    assert "password" not in result.out
    assert "hush" not in result.out


def test_doctor_tells_of_a_name_without_an_address(
    told: None, rewarm: "Command", monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target whose name nobody knows is wrong."""

    def unknown(url: str, timeout: float) -> None:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("ops.notify.post.resolve", unknown)
    checks = {check["name"]: check for check in json.loads(rewarm("doctor", "--json").out)["checks"]}
    assert checks["notify open"]["level"] == "wrong"
    assert "has no address: Name or service not known" in checks["notify open"]["message"]


@pytest.mark.parametrize("url", ["ftp://host/", "https://", "http://host:0/", "http://host:99999/", "just words"])
def test_an_address_that_is_none(configuration: "Configuration", rewarm: "Command", tmp_path: Path, url: str) -> None:
    """check-config names the key."""
    file = tmp_path / "rewarm.yaml"
    file.write_text(file.read_text(encoding="utf-8") + f'notify: [{{url: "{url}"}}]\n', encoding="utf-8")
    result = rewarm("check-config")
    assert result.code == 2
    assert "notify.0.url" in result.err
