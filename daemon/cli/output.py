"""What a person or a program gets to see: sentences, tables and JSON."""

import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

NOTHING = "–"
KIB = 1024


def console(*, stderr: bool = False) -> Console:
    """Return a console on the present standard output; colours only where somebody looks."""
    return Console(stderr=stderr, highlight=False, emoji=False)


def show(*things: RenderableType) -> None:
    """Print tables, texts or plain strings (which are never read as markup)."""
    out = console()
    if out.is_terminal:
        for thing in things:
            out.print(Text(thing) if isinstance(thing, str) else thing)
        return
    with out.capture() as captured:
        for thing in things:
            out.print(Text(thing) if isinstance(thing, str) else thing)
    for line in captured.get().splitlines():
        write(line.rstrip())  # a file or a pipe is spared the blanks that fill up columns


def write(line: str) -> None:
    """Print one line as it is, however wide the terminal is."""
    print(line, flush=True)


def show_json(value: object) -> None:
    """Print a value as indented JSON."""
    write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def show_json_line(value: object) -> None:
    """Print a value as one line of JSON."""
    write(msgspec.json.encode(value).decode())


def warn(message: str) -> None:
    """Print a sentence on standard error."""
    print(f"rewarm: {message}", file=sys.stderr, flush=True)


def complain(error: Exception, *, as_json: bool) -> None:
    """Print a mistake on standard error: a line for each thing that is wrong."""
    if as_json:
        problem = {"error": type(error).__name__, "message": str(error)}
        print(msgspec.json.encode(problem).decode(), file=sys.stderr, flush=True)
        return
    for line in str(error).splitlines() or [type(error).__name__]:
        warn(line)


def columns(headings: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Iterable[int] = ()) -> Table:
    """Return a table with a rule under its headings; columns in `numbers` stand right."""
    right = set(numbers)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def lines(headings: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Iterable[int] = ()) -> list[str]:
    """Return a line a row, columns below each other; the last one is as long as it is, and no line is ever folded."""
    right = set(numbers)
    table = [headings, *rows]
    widths = [max(len(row[index]) for row in table) for index in range(len(headings) - 1)]
    padded = [
        [
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        for row in table
    ]
    return ["  ".join([*cells, row[-1]]) for cells, row in zip(padded, table, strict=True)]


def facts(rows: Iterable[tuple[str, str]], *, indent: int = 2, width: int = 10) -> Table:
    """Return names and what they are, one below the other."""
    table = Table.grid(padding=(0, 2))
    table.add_column(width=width + indent, no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(" " * indent + name, style="dim"), Text(value))
    return table


def heading(text: str) -> Text:
    """Return a title."""
    return Text(text, style="bold")


def commands(rows: Iterable[tuple[str, str]], *, width: int | None = None) -> list[Text]:
    """Return commands with what they do; a command is never cut or wrapped, so that it can be copied."""
    pairs = list(rows)
    longest = max((len(command) for command, _ in pairs), default=0)
    fits = all(4 + longest + len(told) <= (width or console().width) for _, told in pairs)
    lines = []
    for command, told in pairs:
        line = Text("  ", no_wrap=True, overflow="ignore")
        line.append(command, style="bold")
        line.append(" " * (longest - len(command) + 2) if fits else "\n      ")
        line.append(told, style="dim")
        lines.append(line)
    return lines


def count(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its word: 1 document, 1,200 documents."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def seconds(value: float) -> str:
    """Return a duration in words that fit its size."""
    if value < 10:  # noqa: PLR2004 - below it tenths matter
        return f"{value:.1f} s"
    return f"{value:.0f} s" if value < 120 else str(timedelta(seconds=round(value))).removesuffix(", 0:00:00")  # noqa: PLR2004 - two minutes


def kept(settings: Mapping[str, str | int | None]) -> str:
    """Return the settings of retention in one line."""
    return ", ".join(f"{name} {'for ever' if value is None else value}" for name, value in settings.items())


def program() -> str:
    """Return how this program is called from here: by its name where the shell finds it, else by its path."""
    if shutil.which("rewarm"):
        return "rewarm"
    beside = Path(sys.executable).with_name("rewarm")
    return short(beside) if beside.exists() else f"{short(sys.executable)} -m daemon"


def short(path: str | Path) -> str:
    """Return a path as it is shortest to type from here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def when(instant: datetime | None) -> str:
    """Return an instant in UTC, to the second."""
    return NOTHING if instant is None else f"{instant:%Y-%m-%d %H:%M:%S}Z"


def size(count_of_bytes: float) -> str:
    """Return a number of bytes with its unit."""
    value = float(count_of_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < KIB:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= KIB
    return f"{value:.1f} TiB"
