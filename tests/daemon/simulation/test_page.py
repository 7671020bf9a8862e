"""What the page on simulations says of histories and defaults is so."""

import re
from pathlib import Path

import pytest

from daemon.simulation.costs import DEFAULTS, STORM
from daemon.simulation.histories import SHAPES

PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "simulate.md").read_text(encoding="utf-8")
ROWS = {row[0].strip("` "): row[1] for row in re.findall(r"^\| ([^|]+) \| ([^|]+) \|", PAGE, re.MULTILINE)}


@pytest.mark.parametrize("name", sorted(set(SHAPES) - {"failure-storm"}))
def test_histories_are_described_with_their_rates(name: str) -> None:
    """Arrivals a day, and their size where it differs from that of the others."""
    told = ROWS.get(name) or ROWS[f"{name}` (default)"]
    rate = f"{SHAPES[name].a_day:,g}"
    assert told.startswith((f"{rate} a day", f"{rate} arrivals a day"))
    if name in {"steady", "busy"}:
        assert f"of {SHAPES[name].tokens:,} tokens" in told
    else:
        assert SHAPES[name].tokens == SHAPES["steady"].tokens


def test_storms_are_described() -> None:
    """A storm's history is the even one, and its failures are what the page says."""
    storm, steady = SHAPES["failure-storm"], SHAPES["steady"]
    assert (storm.a_day, storm.tokens) == (steady.a_day, steady.tokens)
    assert "60 %" in ROWS["failure-storm"]
    assert STORM == {"worker_lost": 0.5, "transient": 0.35, "out_of_memory": 0.1, "disk_full": 0.05}


def test_defaults_are_the_ones_that_are_told() -> None:
    """Every default of the cost model stands on the page with its number."""
    of = DEFAULTS.duration
    assert ROWS["ingest"] == f"{of('ingest').fixed:g} s + {of('ingest').per_million:g} s a million tokens"
    three = [f"{of(stage).fixed:g} s" for stage in ("probe", "evaluate", "promote")]
    assert ROWS["probe, evaluate, promote"] == ", ".join(three)
    train = of("train")
    assert ROWS[
        "train"
    ] == f"{train.fixed:g} s + {train.per_million:g} s a million tokens, ± {train.spread:.0%}".replace("%", " %")
    assert ROWS["any other stage"] == f"{DEFAULTS.other_stage.fixed:g} s"
    assert ROWS["exact tokens"].startswith(f"{DEFAULTS.counted.mean:g} ± {DEFAULTS.counted.deviation:g} ")
    assert ROWS["shift"].startswith(f"{DEFAULTS.shift.mean:g} ± {DEFAULTS.shift.deviation:g} ")
    gain, forgetting = DEFAULTS.gain, DEFAULTS.forgetting
    assert gain.half == forgetting.half
    assert ROWS["gain, forgetting"] == (
        f"{gain.mean:g} ± {gain.deviation:g}, {forgetting.mean:g} ± {forgetting.deviation:g} nats per byte, "
        f"intervals ± {gain.half:g}"
    )
    assert ROWS["rejected arrivals"] == f"{100 * DEFAULTS.rejected.share:g} %"
    assert ROWS["failures"].startswith(f"{100 * DEFAULTS.other_failures['worker_lost']:g} % of attempts")
