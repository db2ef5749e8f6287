"""Freed memory is kept, and the user's own settings are."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

_PAGES = """
import ctypes, resource, sys, threading
from facefeat_jax.system.runtime import keep_freed_memory
done = keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
found = []
def faults(size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [ctypes.c_void_p(libc.malloc(size)) for _ in range(2)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks:
        libc.free(block)
    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
def twice(size):
    faults(size)
    faults(size)
def in_a_thread(size):
    thread = threading.Thread(target=twice, args=(size,))
    thread.start()
    thread.join()
{"main": twice, "other": in_a_thread}[sys.argv[1]](int(sys.argv[2]) << 20)
print(done, found[-1])
"""


def _run(thread: str = "main", mebibytes: int = 64, **environ: str) -> tuple[str, int]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", _PAGES, thread, str(mebibytes)]
    done, faults = subprocess.run(
        command, env={**clean, **environ}, check=True, capture_output=True, text=True
    ).stdout.split()
    return done, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="sets glibc's allocator")
@pytest.mark.parametrize(("thread", "mebibytes"), [("main", 64), ("main", 512), ("other", 1), ("other", 48)])
def test_the_second_use_of_blocks_meets_no_new_pages(thread: str, mebibytes: int) -> None:
    assert _run(thread, mebibytes)[0] == "True"
    kept, plain = _run(thread, mebibytes)[1], _run(thread, mebibytes, MALLOC_MMAP_THRESHOLD_=str(1 << 19))[1]
    assert kept < 100 < plain


@pytest.mark.parametrize("variable", [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}])
def test_the_users_settings_are_left(variable: dict[str, str]) -> None:
    assert _run(**variable)[0] == "False"
