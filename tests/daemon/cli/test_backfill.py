"""`rewarm backfill`: the request as it is sent, and periods that are none."""

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from daemon.config import Configuration
    from tests.daemon.cli.conftest import Command


def sent(configuration: "Configuration") -> list[dict[str, object]]:
    """Return what the requests in the spool carry."""
    return [json.loads(path.read_bytes())["data"] for path in sorted(configuration.spools[0].glob("*.json"))]


def test_a_period_becomes_a_request(rewarm: "Command", configuration: "Configuration") -> None:
    """A date alone is its midnight in UTC, an instant has a zone."""
    arguments = ("backfill", "docs-lm", "--from", "20260301", "--to", "2026-03-01T09:30:00+01:00", "--reason", "late")
    code, _, err = rewarm(*arguments)
    assert (code, err) == (0, "")
    period = {"since": "2026-03-01T00:00:00Z", "until": "2026-03-01T09:30:00+01:00"}
    assert sent(configuration) == [{"verb": "backfill", **period, "reason": "late"}]


@pytest.mark.parametrize(
    ("begin", "end", "told"),
    [
        ("2026-03-01", "2026-03-01", "is empty"),
        ("2026-03-02", "2026-03-01", "is empty"),
        ("yesterday", "2026-03-01", "is no instant"),
        ("2026-03-01", "2026-03-02T10:00", "has no zone"),
        ("0001-01-01T00:00:00+14:00", "2026-03-01", "is no instant"),
    ],
)
def test_what_is_no_period_is_not_sent(
    rewarm: "Command", configuration: "Configuration", begin: str, end: str, told: str
) -> None:
    """It is a mistake of whoever asks, told at once."""
    code, _, err = rewarm("backfill", "docs-lm", "--from", begin, "--to", end)
    assert (code, told in err, sent(configuration)) == (2, True, [])
