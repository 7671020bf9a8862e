"""A site whose loop works, with and without tokens."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.settings import Scope, TokenSettings
from daemon.tokens import Tokens
from tests.daemon.sources.http.site import SECRETS, Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """The application as it is on one machine without tokens."""
    made = Site(tmp_path).start()
    yield made
    made.stop()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Site]:
    """The application with a token for each scope."""
    scopes: dict[str, Scope] = {"sender": "send", "reader": "read", "operator": "operate"}
    settings = []
    for name, secret in SECRETS.items():
        file = tmp_path / name
        file.write_text(secret + "\n", encoding="utf-8")
        file.chmod(0o600)
        settings.append(TokenSettings(name=name, file=file, scopes=(scopes[name],)))
    made = Site(tmp_path, Tokens(settings, open_to_all=True)).start()
    yield made
    made.stop()
