"""Requests that say more than a verb and a run."""

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daemon.config import Configuration
    from tests.daemon.cli.conftest import Command


def test_an_approval_of_a_start_names_its_decision(rewarm: "Command", configuration: "Configuration") -> None:
    """`approve --decision` sends the position; other verbs have none."""
    assert rewarm("request", "approve", "docs-lm", "--decision", "4711").code == 0
    (path,) = configuration.spools[0].glob("*.json")
    assert json.loads(path.read_bytes())["data"] == {"verb": "approve", "decision": 4711}

    code, _, err = rewarm("request", "train", "docs-lm", "--decision", "4711")
    assert code == 2
    assert "train has none" in err
