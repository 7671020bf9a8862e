"""A pid is told from the same pid of another process."""

import os
from pathlib import Path

from daemon.pids import boot_id, namespace, start_time


def test_this_process_is_known() -> None:
    """It has a start time, a boot and a namespace, which stay the same."""
    assert start_time(os.getpid()) == start_time(os.getpid()) > 0
    assert len(boot_id()) == 36
    assert namespace() == str(Path("/proc/self/ns/pid").readlink())


def test_who_is_gone_has_no_start_time() -> None:
    """A pid beyond all pids is nobody's."""
    assert start_time(1 << 30) == 0
