"""The process's own memory."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

COUNT = """
import ctypes, sys, threading
from daemon.service.memory import share_one_heap
if sys.argv[1] == "shared":
    share_one_heap()
libc = ctypes.CDLL(None)
together = threading.Barrier(4)
threads = [threading.Thread(target=lambda: (together.wait(), libc.malloc(1000))) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


HELD = """
import sys
from pathlib import Path
from daemon.service.memory import give_back
PAGE = 4096
def pages():
    return int(Path("/proc/self/statm").read_text().split()[1])
held = [bytearray(4000) for _ in range(5000)]  # each too small to be given back alone, the last one keeps the rest
last = held[-1]
del held
before = pages()
give_back()
print((before - pages()) * PAGE)
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc alone"
)
def test_what_is_not_needed_is_given_back() -> None:
    """Memory that is free and lies below what is in use goes back to the system: most of 20 MB."""
    done = subprocess.run([sys.executable, "-c", HELD], check=True, timeout=60, capture_output=True, text=True)
    assert int(done.stdout) > 15_000_000


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "malloc_info"), reason="glibc alone"
)
def test_threads_share_one_heap(tmp_path: Path) -> None:
    """With it there is one however many threads there are, without it there are more."""
    heaps = {}
    for how in ("shared", "apart"):
        file = tmp_path / how
        subprocess.run([sys.executable, "-c", COUNT, how, str(file)], check=True, timeout=60)
        heaps[how] = file.read_text(encoding="utf-8").count("<heap nr=")
    assert heaps["shared"] == 1
    assert heaps["apart"] > 1
