"""The wake-up call of a folder."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.sources.watch import Watch

LONG = 20.0


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    """Watch a folder."""
    made = Watch(tmp_path / "spool")
    (tmp_path / "spool").mkdir()
    made.open()
    yield made
    made.close()


def seconds(action: Callable[[], None]) -> float:
    """Return how long an action took."""
    begun = time.monotonic()
    action()
    return time.monotonic() - begun


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
@pytest.mark.parametrize("before", [True, False])
def test_a_file_that_is_renamed_in_wakes(watch: Watch, tmp_path: Path, before: bool) -> None:
    """Whether it comes during the wait or shortly before it, the wait ends."""
    (tmp_path / "f").write_text("x")

    def rename() -> None:
        (tmp_path / "f").rename(tmp_path / "spool" / "f")

    if before:
        rename()
        assert seconds(lambda: watch.wait(LONG)) < LONG / 2
        return
    thread = threading.Timer(0.05, rename)
    thread.start()
    assert seconds(lambda: watch.wait(LONG)) < LONG / 2
    thread.join()


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
def test_a_folder_that_was_replaced_is_watched_again(watch: Watch, tmp_path: Path) -> None:
    """After the folder was moved away and made anew, opening again watches the new one."""
    (tmp_path / "spool").rename(tmp_path / "old")
    (tmp_path / "spool").mkdir()
    watch.open()
    (tmp_path / "spool" / "f").write_text("x")
    assert seconds(lambda: watch.wait(LONG)) < LONG / 2


def test_a_call_wakes(watch: Watch) -> None:
    """Called before or often, the wait ends once."""
    for _ in range(10):
        watch.wake()
    assert seconds(lambda: watch.wait(LONG)) < LONG / 2
    assert seconds(lambda: watch.wait(0.01)) >= 0.005


def test_without_news_the_time_passes(watch: Watch) -> None:
    """The wait ends by itself: a share on the network tells nothing."""
    assert seconds(lambda: watch.wait(0.02)) >= 0.01


def test_a_folder_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    """Opening and closing without a folder is harmless."""
    watch = Watch(tmp_path / "none")
    watch.open()
    watch.wait(0.0)
    watch.close()
    watch.wake()
