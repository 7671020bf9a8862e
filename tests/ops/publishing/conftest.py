"""What the tests of followers have in common."""

from pathlib import Path

import pytest

from tests.ops.publishing.world import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Give an empty journal and an empty topic."""
    return Bench(tmp_path)
