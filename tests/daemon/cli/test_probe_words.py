"""What explain, events and status say of a probe: all that it measured, and nothing that it did not."""

from pathlib import Path

import msgspec
import pytest

from daemon.cli.explain.render import documents
from daemon.cli.words import shift, summary, unmeasured
from daemon.core.events import ProbeMeasured

GOLDEN = Path(__file__).parents[2] / "golden" / "events"


@pytest.fixture
def measured() -> ProbeMeasured:
    """A probe with everything."""
    return msgspec.json.decode((GOLDEN / "probe.measured.v1.full.json").read_bytes(), type=ProbeMeasured)


def test_a_shift_has_its_interval(measured: ProbeMeasured) -> None:
    """The interval is shown where it was measured; what earlier releases told has none, and none is made up."""
    earlier = msgspec.structs.replace(measured, shift_low=None, shift_high=None)

    assert shift(measured) == "+0.4375 [+0.3981, +0.4771]"
    assert shift(earlier, 3) == "+0.438"
    assert summary(measured) == "shift +0.4375 [+0.3981, +0.4771]; tests 5.1% near-duplicates"


def test_a_probe_without_a_shift_says_why(measured: ProbeMeasured) -> None:
    """There was no champion; there was one, and nothing of the past was held out, or nothing was new."""
    alone = msgspec.structs.replace(measured, shift=None, past={})

    assert unmeasured(alone) == "no past to compare with"
    assert unmeasured(msgspec.structs.replace(alone, new={})) == "no champion yet"
    assert unmeasured(msgspec.structs.replace(measured, shift=None, new={})) == "nothing new to compare"
    assert summary(msgspec.structs.replace(alone, near_duplicates={})) == "there is no past to compare with"


def test_documents_are_described(measured: ProbeMeasured) -> None:
    """Lengths, what the bytes are, near-duplicates in percent; of what is not known nothing is said."""
    (line,) = documents(measured)

    assert line.startswith("tests: 412 documents, median 1.8 KiB, mean 3.0 KiB, longest 86.1 KiB; 99.9% ASCII")
    assert line.endswith("22.1% white space, 1.8% digits; near-duplicates 5.1%")
    assert list(documents(msgspec.structs.replace(measured, lengths={}, near_duplicates={}))) == []
