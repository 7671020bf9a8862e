"""A home for daemons, and the assurance that nothing of a test goes on after it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Give a home with one pipeline of one stage that takes no time; end every process in it afterwards."""
    made = Home(tmp_path)
    made.configure()
    yield made
    made.close()
