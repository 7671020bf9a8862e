"""What moves while the demo works: a bar for each stage where somebody looks, else a line now and then."""

import sys
import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

QUIET_SECONDS = 10.0


class Screen(Protocol):
    """Where the demo's progress is shown."""

    def say(self, sentence: str, style: str = "") -> None:
        """Show a sentence."""

    def begin(self, stage: str, total: int | None) -> None:
        """Show that a stage has begun."""

    def advance(self, stage: str, step: int, total: int, told: str) -> None:
        """Show how far the stage is."""

    def end(self, stage: str, told: str, *, well: bool = True) -> None:
        """Show that the stage has ended."""

    def __enter__(self) -> Self:
        """Take the screen."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave it as it is."""


class Bars:
    """Progress bars in a terminal."""

    def __init__(self, console: Console) -> None:
        """Draw on a console."""
        self._progress = Progress(
            TextColumn("  {task.description:<9}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[told]}"),
            console=console,
            expand=False,
        )
        self._tasks: dict[str, TaskID] = {}

    def say(self, sentence: str, style: str = "") -> None:
        """Print above the bars; bars that have ended stay where they are."""
        self._flush()
        text = sentence.lstrip(" ")
        hanging = (0, 0, 0, len(sentence) - len(text))
        self._progress.console.print(Padding(Text(text, style=style), hanging, expand=False))

    def begin(self, stage: str, total: int | None) -> None:
        """Add a bar."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, told="")

    def advance(self, stage: str, step: int, total: int, told: str) -> None:
        """Move a bar."""
        self.begin(stage, total)
        self._progress.update(self._tasks[stage], completed=step, total=total or None, told=told)

    def end(self, stage: str, told: str, *, well: bool = True) -> None:
        """Fill a bar, or leave it where the stage failed."""
        self.begin(stage, 1)
        task = self._progress.tasks[[t.id for t in self._progress.tasks].index(self._tasks[stage])]
        total = task.total or 1
        completed = total if well else task.completed
        self._progress.update(task.id, total=total, completed=completed, told=told)
        self._progress.stop_task(task.id)

    def _flush(self) -> None:
        """Print finished bars for good, so that what comes after stands below them."""
        if self._tasks and all(task.finished or task.stop_time for task in self._progress.tasks):
            self._progress.console.print(self._progress.get_renderable())
            for task in self._tasks.values():
                self._progress.remove_task(task)
            self._tasks.clear()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flush()
        self._progress.stop()


class Lines:
    """Plain lines, on standard error where standard output is for a program."""

    def __init__(self, *, stderr: bool) -> None:
        """Write to standard output, or to standard error."""
        self._stderr = stderr
        self._shown = 0.0

    def say(self, sentence: str, style: str = "") -> None:
        """Print a line."""
        print(sentence, file=sys.stderr if self._stderr else sys.stdout, flush=True)

    def begin(self, stage: str, total: int | None) -> None:
        """Say that a stage has begun."""
        self._shown = time.monotonic()
        self.say(f"  {stage} …")

    def advance(self, stage: str, step: int, total: int, told: str) -> None:
        """Say how far it is, every now and then."""
        if time.monotonic() - self._shown >= QUIET_SECONDS:
            self._shown = time.monotonic()
            self.say(f"  {stage} {step:,}/{total:,}  {told}")

    def end(self, stage: str, told: str, *, well: bool = True) -> None:
        """Say that it has ended."""
        self.say(f"  {stage} {'done' if well else 'ended'}: {told}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the lines where they are."""


def choose(console: Console, *, as_json: bool) -> Screen:
    """Return bars for a terminal, lines for a file or a program."""
    return Bars(console) if console.is_terminal and not as_json else Lines(stderr=as_json)
