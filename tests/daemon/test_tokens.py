"""Tokens: files that cannot be used, rotation, expiry, and the daemon's own token."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from daemon.core.errors import ConfigurationError
from daemon.settings import TokenSettings
from daemon.tokens import ALL, ANONYMOUS, Holder, Refused, Tokens

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET, OTHER = "a" * 32, "b" * 32
Make = Callable[..., TokenSettings]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a token with such a file."""

    def build(name: str = "ci", content: str = SECRET, mode: int = 0o600, **more: object) -> TokenSettings:
        file = tmp_path / name
        file.write_text(content, encoding="utf-8")
        file.chmod(mode)
        return TokenSettings.model_validate({"name": name, "file": file, "scopes": ["send"], **more})

    return build


def name(found: Holder | Refused) -> str:
    """Return who was found, or why nobody was."""
    return found.name if isinstance(found, Holder) else found.error


def test_a_token_is_known_by_its_content(make: Make) -> None:
    """Its holder has its name and scopes; anything else is nobody's."""
    tokens = Tokens([make(), make("ops", OTHER, scopes=["operate", "read"])])
    assert tokens.holder(SECRET) == Holder(name="ci", scopes=frozenset({"send"}))
    assert tokens.holder(OTHER) == Holder(name="ops", scopes=frozenset({"operate", "read"}))
    assert [name(tokens.holder(shown)) for shown in ("", SECRET[:-1], SECRET + "a", "é")] == ["token_unknown"] * 4
    assert name(tokens.holder(None)) == "token_missing"


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        ("", 0o600, "is empty"),
        (" \n\n", 0o600, "is empty"),
        ("short", 0o600, "can be guessed"),
        (SECRET, 0o604, "chmod o="),
        (SECRET, 0o602, "chmod o="),
        (SECRET + "é", 0o600, "printable ASCII"),
        (SECRET + " b", 0o600, "printable ASCII"),
    ],
)
def test_a_file_that_is_no_good_is_named(make: Make, content: str, mode: int, message: str) -> None:
    """The message says which token, which file, and what to do."""
    with pytest.raises(ConfigurationError, match=rf"tokens\.ci\.file: .*{message}"):
        Tokens([make(content=content, mode=mode)])


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The same for one that cannot be opened."""
    missing = TokenSettings(name="ci", file=tmp_path / "none", scopes=("send",))
    with pytest.raises(ConfigurationError, match=r"tokens\.ci\.file: .*none cannot be read: No such file"):
        Tokens([missing])


def test_two_tokens_are_two(make: Make) -> None:
    """With the same content nobody could say whose request it is."""
    with pytest.raises(ConfigurationError, match="ci and ops have the same content"):
        Tokens([make(), make("ops")])


def test_a_rotated_file_is_read_again(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """The new content counts from the next request on; while the file is gone, nobody holds the token."""
    settings = make()
    tokens = Tokens([settings])
    new = settings.file.with_suffix(".new")
    new.write_text(f"{SECRET}\n{OTHER}\n", encoding="utf-8")
    new.chmod(0o600)
    new.replace(settings.file)
    assert [name(tokens.holder(shown)) for shown in (SECRET, OTHER)] == ["ci", "ci"]
    settings.file.write_text(OTHER, encoding="utf-8")
    assert [name(tokens.holder(shown)) for shown in (SECRET, OTHER)] == ["token_unknown", "ci"]
    settings.file.unlink()
    assert [name(tokens.holder(OTHER)) for _ in range(3)] == ["token_unknown"] * 3
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == ["A token cannot be read."]
    settings.file.write_text(SECRET, encoding="utf-8")
    settings.file.chmod(0o644)
    assert name(tokens.holder(SECRET)) == "token_unknown"
    settings.file.chmod(0o600)
    assert name(tokens.holder(SECRET)) == "ci"
    assert SECRET not in caplog.text
    assert OTHER not in caplog.text


def test_a_link_is_judged_by_what_it_leads_to(make: Make, tmp_path: Path) -> None:
    """As Kubernetes mounts secrets: another target counts at once, one that everybody can read does not."""
    settings = make()
    link = tmp_path / "link"
    link.symlink_to(settings.file)
    tokens = Tokens([settings.model_copy(update={"file": link})])
    assert name(tokens.holder(SECRET)) == "ci"
    other = make("other", OTHER).file
    link.unlink()
    link.symlink_to(other)
    assert [name(tokens.holder(shown)) for shown in (SECRET, OTHER)] == ["token_unknown", "ci"]
    other.chmod(0o644)
    assert name(tokens.holder(OTHER)) == "token_unknown"


def test_a_token_ends_when_it_expires(make: Make) -> None:
    """From that instant on its holder is told that it has expired; whoever guesses is not."""
    now = NOW
    tokens = Tokens([make(expires=NOW + timedelta(hours=1))], now=lambda: now)
    assert name(tokens.holder(SECRET)) == "ci"
    now = NOW + timedelta(hours=1)
    found = tokens.holder(SECRET)
    assert isinstance(found, Refused)
    assert (found.error, found.message) == ("token_expired", "The token ci expired at 2026-03-01T13:00:00+00:00.")
    assert name(tokens.holder(OTHER)) == "token_unknown"


def test_nobody_needs_a_token_on_one_machine_without_any(make: Make) -> None:
    """Open to all: whoever shows none may send and read; with a token configured nobody may without."""
    assert Tokens((), open_to_all=True).holder(None) == Holder(name=ANONYMOUS, scopes=frozenset({"send", "read"}))
    assert name(Tokens((), open_to_all=True).holder(SECRET)) == "token_unknown"
    assert name(Tokens([make()], open_to_all=True).holder(None)) == "token_missing"
    assert name(Tokens(()).holder(None)) == "token_missing"


def test_the_daemons_own_token_has_every_scope() -> None:
    """One more secret is let in beside the configured ones; the next one takes its place."""
    tokens = Tokens(())
    tokens.admit_local(SECRET, Holder(name="ann", scopes=ALL))
    assert name(tokens.holder(SECRET)) == "ann"
    tokens.admit_local(OTHER, Holder(name="ann", scopes=ALL))
    assert name(tokens.holder(SECRET)) == "token_unknown"


def test_a_file_changed_back_in_time_is_noticed(make: Make) -> None:
    """Any other time, size or inode of the file counts, not only a later one."""
    settings = make()
    tokens = Tokens([settings])
    settings.file.write_text(OTHER, encoding="utf-8")
    os.utime(settings.file, (0, 0))
    assert name(tokens.holder(OTHER)) == "ci"
