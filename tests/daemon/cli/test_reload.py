"""`rewarm reload` where nobody can carry it out."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daemon.config import Configuration
    from tests.daemon.cli.conftest import Command


def test_without_a_daemon_nothing_is_sent(rewarm: "Command", configuration: "Configuration") -> None:
    """The next one reads the file by itself."""
    code, _, err = rewarm("reload")
    assert (code, "the next one reads the file" in err) == (2, True)
    assert list(configuration.spools[0].glob("*.json")) == []


def test_other_commands_name_it(rewarm: "Command") -> None:
    """`rewarm request` has no pipeline to reload, and no period."""
    for verb in ("reload", "backfill"):
        code, _, err = rewarm("request", verb, "docs-lm")
        assert (code, f"rewarm {verb}" in err) == (2, True)
