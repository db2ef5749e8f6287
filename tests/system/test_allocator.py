"""Freed memory is kept, and the user's own settings are."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

_PAGES = """
import ctypes, resource
from facefeat_jax.system.runtime import keep_freed_memory
done = keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = ctypes.c_void_p(libc.malloc(64 << 20))
    ctypes.memset(block, 1, 64 << 20)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(done, faults())
"""


def _run(**environ: str) -> tuple[str, int]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done, faults = subprocess.run(
        [sys.executable, "-c", _PAGES], env={**clean, **environ}, check=True, capture_output=True, text=True
    ).stdout.split()
    return done, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="sets glibc's allocator")
def test_the_second_use_of_a_block_meets_no_new_pages() -> None:
    assert _run()[0] == "True"
    kept, plain = _run()[1], _run(MALLOC_MMAP_THRESHOLD_=str(1 << 20))[1]
    assert kept < 100 < plain


@pytest.mark.parametrize("variable", [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}])
def test_the_users_settings_are_left(variable: dict[str, str]) -> None:
    assert _run(**variable)[0] == "False"
