"""`rewarm adopt`: the request as it is sent."""

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from daemon.config import Configuration
    from tests.daemon.cli.conftest import Command


def sent(configuration: "Configuration") -> list[dict[str, object]]:
    """Return what the requests in the spool carry."""
    return [json.loads(path.read_bytes())["data"] for path in sorted(configuration.spools[0].glob("*.json"))]


@pytest.mark.parametrize("trained_on", ["pending", "nothing"])
def test_a_folder_becomes_a_request(rewarm: "Command", configuration: "Configuration", trained_on: str) -> None:
    """It names the folder, what the model has seen, and why."""
    folder = configuration.roots[0] / "our model"
    folder.mkdir()
    arguments = ("adopt", "docs-lm", str(folder), "--trained-on", trained_on, "--reason", "it is ours", "--json")
    code, out, err = rewarm(*arguments)

    assert (code, err) == (0, "")
    assert json.loads(out)["event"]["type"] == "io.rewarm.operator.requested.v1"
    assert sent(configuration) == [
        {"verb": "adopt", "model": folder.as_uri(), "trained_on": trained_on, "reason": "it is ours"}
    ]


def test_what_would_be_refused_is_sent_with_a_warning(rewarm: "Command", configuration: "Configuration") -> None:
    """Folders and roots may change until the daemon reads it."""
    code, _, err = rewarm("adopt", "docs-lm", str(configuration.roots[0] / "nowhere"))
    assert code == 0
    assert "nowhere is no folder" in err
    code, _, err = rewarm("adopt", "docs-lm", "/etc")
    assert code == 0
    assert "outside the configured roots" in err
    assert [each["trained_on"] for each in sent(configuration)] == ["pending", "pending"]


def test_mistakes_are_told(rewarm: "Command", configuration: "Configuration") -> None:
    """An unknown pipeline is refused with the known ones, and nothing is sent."""
    code, _, err = rewarm("adopt", "docs", "/somewhere")
    assert code == 2
    assert "docs-lm" in err
    assert sent(configuration) == []
