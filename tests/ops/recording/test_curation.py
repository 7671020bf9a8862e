"""The picture of a curation."""

from pathlib import Path

from msgspec.structs import replace

from daemon.core.encoding import decode
from daemon.core.events import DataCurated
from ops.recording.plots import curation_plot

GOLDEN = Path(__file__).parents[2] / "golden" / "events" / "data.curated.v1.json"


def test_scores_are_drawn_with_their_cuts() -> None:
    """The same bytes every time; nothing where nothing was scored."""
    event = decode("data.curated", 1, GOLDEN.read_bytes())
    assert isinstance(event, DataCurated)
    picture = curation_plot(event, "docs-lm-12, curated")
    assert picture is not None
    assert picture.startswith(b"\x89PNG")
    assert picture == curation_plot(event, "docs-lm-12, curated")
    assert curation_plot(replace(event, scale=None), "t") is None
