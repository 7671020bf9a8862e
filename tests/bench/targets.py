"""What the benches are held to, and how each of them reports.

`targets.json` beside this file says, per bench, what its value is and what bounds it: at_least, above, at_most
or below; `also` bounds further figures of `details`. A bench without a bound holds nothing: null.
"""

import json
import operator
import os
import platform
import sqlite3
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGETS = Path(__file__).with_name("targets.json")
BOUNDS = {"at_least": operator.ge, "above": operator.gt, "at_most": operator.le, "below": operator.lt}

Figure = str | int | float | bool | None
Figures = Mapping[str, Figure]


def holds(name: str, value: float, details: Figures) -> bool | None:
    """Return whether the bench's value and the further bounded figures are within their bounds; None: no bounds."""
    target = json.loads(TARGETS.read_text(encoding="utf-8"))[name]
    figures = [(value, target)] + [(details.get(key), bound) for key, bound in target.get("also", {}).items()]
    verdicts = [
        isinstance(figure, int | float) and BOUNDS[word](figure, bound[word])
        for figure, bound in figures
        for word in BOUNDS
        if word in bound
    ]
    return all(verdicts) if verdicts else None


def report(
    name: str,
    value: float,
    details: Figures,
    rows: Sequence[Figures] = (),
    *,
    seeds: Sequence[int] = (),
    keep: bool = True,
) -> bool | None:
    """Print the rows as a table and, as the last line, the result as JSON; return whether it holds.

    `details` go into that line, `rows` into the table; all of it into docs/benchmarks/NAME.json (unless `keep`
    is false) with machine, commit, seeds and date.
    """
    target = json.loads(TARGETS.read_text(encoding="utf-8"))[name]
    bound = next((target[word] for word in BOUNDS if word in target), None)
    result = {"bench": name, "value": value, "target": bound, "holds": holds(name, value, details), **details}
    if keep:
        kept = {
            **result,
            "value_is": target["value"],
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": commit(),
            "seeds": list(seeds),
            "machine": machine(),
            "rows": [dict(row) for row in rows],
        }
        path = ROOT / "docs" / "benchmarks" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for line in table(rows):
        print(line)
    print(json.dumps(result, ensure_ascii=False), flush=True)
    return holds(name, value, details)


def table(rows: Sequence[Figures]) -> list[str]:
    """Return the lines of a table with the keys of the first row as its head."""
    if not rows:
        return []
    head = list(rows[0])
    cells = [head, *([_cell(row.get(key)) for key in head] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]


def machine() -> dict[str, Figure]:
    """Return what the numbers depend on: processor, cores, memory, system, Python, SQLite."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }


def commit() -> str | None:
    """Return the commit that was measured, with "+" when files differ from it; None without git."""
    try:
        revision = _git("rev-parse", "HEAD")
        return revision + ("+" if _git("status", "--porcelain", "--", ".", ":!docs/benchmarks") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _cell(figure: Figure) -> str:
    return f"{figure:,.4g}" if isinstance(figure, float) else f"{figure}"
