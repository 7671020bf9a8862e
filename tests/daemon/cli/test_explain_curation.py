"""What a person is told of a curation."""

from pathlib import Path

from msgspec.structs import replace

from daemon.cli.explain.band import bands, kept
from daemon.core.encoding import decode
from daemon.core.events import DataCurated

GOLDEN = Path(__file__).parents[2] / "golden" / "events" / "data.curated.v1.json"


def curated() -> DataCurated:
    """Return the event that is kept as a sample."""
    event = decode("data.curated", 1, GOLDEN.read_bytes())
    assert isinstance(event, DataCurated)
    return event


def test_a_curation_says_what_stays_and_why() -> None:
    """How much, between which scores, and what every trial found."""
    assert kept(curated()) == (
        "288 of 412 documents (786,432 tokens) are trained on; 7 were rewritten and 1 were left out by the callable"
    )
    assert list(bands(curated(), "nats per byte")) == [
        "tests: 289 of 412 documents score 0.8750 to 1.5625 nats per byte (all: mean 1.5000, sigma 0.2500)",
        "trial of low 0, high 0.15: development loss 1.4688, trained on 315 documents",
        "trial of low 0, high 0.3: development loss 1.4375, trained on 259 documents ← kept",
    ]


def test_a_curation_without_a_champion_says_so() -> None:
    """Nothing was scored, so nothing was left out."""
    assert kept(replace(curated(), cut=None)) == "there was no champion to score by, so all 412 documents are kept"
