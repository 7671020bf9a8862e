"""How benches report: bounds, the last line, and what is kept."""

import json
from pathlib import Path

import pytest

from tests.bench import targets

TABLE = {
    "fast": {"value": "a ratio", "at_least": 0.6},
    "small": {"value": "megabytes", "below": 70, "also": {"cpu_percent": {"below": 1}}},
    "free": {"value": "milliseconds"},
}


@pytest.fixture(autouse=True)
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a table of targets in place of the real one, and keep results in the test's folder."""
    path = tmp_path / "targets.json"
    path.write_text(json.dumps(TABLE), encoding="utf-8")
    monkeypatch.setattr(targets, "TARGETS", path)
    monkeypatch.setattr(targets, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "value", "details", "expected"),
    [
        ("fast", 0.6, {}, True),
        ("fast", 0.59, {}, False),
        ("small", 69.9, {"cpu_percent": 0.4}, True),
        ("small", 70, {"cpu_percent": 0.4}, False),
        ("small", 60, {"cpu_percent": 1.0}, False),
        ("small", 60, {}, False),
        ("free", 1e9, {}, None),
    ],
)
def test_a_result_holds_within_all_its_bounds(
    name: str, value: float, details: dict[str, float], expected: bool | None
) -> None:
    """The value and each further bounded figure must be there and within bounds; without bounds nothing is held."""
    assert targets.holds(name, value, details) is expected


def test_a_report_ends_with_one_line_of_json(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rows are printed as a table, the last line is the result, and a file keeps both with their origin."""
    rows: list[targets.Figures] = [{"case": "a", "per_second": 1234.5}, {"case": "bb", "per_second": 7}]
    assert targets.report("fast", 0.9, {"rounds": 3}, rows, seeds=[1, 2]) is True
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["case", "per_second"]
    assert lines[2].split() == ["bb", "7"]
    result = {"bench": "fast", "value": 0.9, "target": 0.6, "holds": True, "rounds": 3}
    assert json.loads(lines[-1]) == result
    kept = json.loads((table / "docs" / "benchmarks" / "fast.json").read_text(encoding="utf-8"))
    assert {**kept, **result} == kept
    assert (kept["seeds"], kept["rows"]) == ([1, 2], rows)
    assert kept["machine"]["cores"] >= 1
    assert set(kept) >= {"date", "commit", "value_is"}


def test_a_trial_run_keeps_nothing(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With `keep` false the kept result of a full run stays as it is."""
    assert targets.report("free", 3.0, {}, keep=False) is None
    assert json.loads(capsys.readouterr().out) == {"bench": "free", "value": 3.0, "target": None, "holds": None}
    assert not (table / "docs").exists()


def test_every_bench_has_a_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each bench in this folder is in the committed table, with known bounds and a word on its value."""
    folder = Path(targets.__file__).parent
    committed = json.loads((folder / "targets.json").read_text(encoding="utf-8"))
    assert {path.stem.removeprefix("bench_") for path in folder.glob("bench_*.py")} <= set(committed)
    for target in committed.values():
        assert isinstance(target["value"], str)
        for bound in (target, *target.get("also", {}).values()):
            assert set(bound) <= {"value", "also", *targets.BOUNDS}
