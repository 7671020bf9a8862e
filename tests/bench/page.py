"""The tables of docs/benchmarks.md, made from the results that are kept beside it.

`python tests/bench/page.py` writes them anew between the page's marks; a test sees when they are stale.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.targets import ROOT, TARGETS

PAGE = ROOT / "docs" / "benchmarks.md"
KEPT = ROOT / "docs" / "benchmarks"
SIGNS = {"at_least": "≥", "above": ">", "at_most": "≤", "below": "<"}
COMMON = {"bench", "value", "target", "holds", "value_is", "date", "commit", "seeds", "machine", "rows", "readings"}
VERDICTS = {True: "yes", False: "**no**", None: "no bound"}

Result = dict[str, Any]


def results(folder: Path = KEPT) -> list[Result]:
    """Return the kept results in the order of their names."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def render(found: list[Result]) -> str:
    """Return the tables, and what does not hold or was not measured."""
    targets = json.loads(TARGETS.read_text(encoding="utf-8"))
    lines = ["| bench | value | is | bounds | hold |", "|---|---|---|---|---|"]
    lines += [
        f"| [{each['bench']}](benchmarks/{each['bench']}.json) | {figure(each['value'])} | {each['value_is']} "
        f"| {', '.join(bounds(targets[each['bench']])) or 'none'} | {VERDICTS[each['holds']]} |"
        for each in found
    ]
    lines += ["", "| bench | further figures | measured |", "|---|---|---|"]
    lines += [f"| {each['bench']} | {further(each)} | {circumstances(each)} |" for each in found]
    broken = [each["bench"] for each in found if each["holds"] is False]
    absent = sorted(set(targets) - {each["bench"] for each in found})
    lines += [
        "",
        f"Bounds that do not hold: {', '.join(broken) or 'none'}. Not measured yet: {', '.join(absent) or 'none'}.",
    ]
    return "\n".join(lines)


def bounds(target: Result) -> Iterator[str]:
    """Yield a bench's bounds in words."""
    for word, sign in SIGNS.items():
        if word in target:
            yield f"{sign} {figure(target[word])}"
    for name, also in target.get("also", {}).items():
        for word, sign in SIGNS.items():
            if word in also:
                yield f"{name} {sign} {figure(also[word])}"


def further(result: Result) -> str:
    """Return the figures that are a bench's own."""
    own = {name: value for name, value in result.items() if name not in COMMON and value is not None}
    return ", ".join(f"{name} {figure(value)}" for name, value in own.items())


def circumstances(result: Result) -> str:
    """Return when, of what and on what a result was measured."""
    machine, commit = result["machine"], result["commit"]
    changed = "+" if commit.endswith("+") else ""
    return f"{result['date'][:10]}, `{commit[:7]}{changed}`, {machine['cores']} cores, Python {machine['python']}"


def figure(value: object) -> str:
    """Return a number with its thousands parted."""
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def between(page: str) -> tuple[str, str, str]:
    """Return what stands before, between and after the page's marks."""
    before, begin, rest = page.partition("<!-- results: begin -->\n")
    inside, end, after = rest.partition("\n<!-- results: end -->")
    return before + begin, inside, end + after


def main() -> None:
    """Write the page's tables anew."""
    before, _, after = between(PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(before + render(results()) + after, encoding="utf-8")


if __name__ == "__main__":
    main()
