"""What a test session sets before jax is imported: programs compiled fast, once, for all its processes; types checked.

The workers of pytest-xdist and the programs that tests start inherit the environment, and with it the cache.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile

import jaxtyping

# Tests run each program a few times, so compiling them takes most of a session. Without LLVM's optimisations a training
# step of ResNet18 compiles four to five times faster and runs half as fast. `make compare` proves equality with PyTorch
# with the flags off, as users' programs are compiled.
_ALWAYS = "--xla_backend_optimization_level=0"
_IF_KNOWN = "--xla_cpu_use_fusion_emitters=false"  # jaxlib 0.10; it saves as much again

CACHE = "JAX_COMPILATION_CACHE_DIR"


def set_up() -> str | None:
    """Sets the environment of a session; returns the folder to be removed after it, if it made one.

    What the caller set stays: `XLA_FLAGS= pytest` compiles as users' programs are.
    """
    os.environ.setdefault("XLA_FLAGS", _flags() if "XLA_FLAGS" not in os.environ else "")
    # As a user's program may have it: what we write broadcasts nothing from one rank to another by itself.
    os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
    # With it, commands leave the allocator alone: tests call many in one process, which would keep the most of each.
    os.environ.setdefault("MALLOC_ARENA_MAX", "8")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    # A limit, because only then does jax lock the cache against other processes.
    os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(8 * 2**30))
    if CACHE in os.environ:
        return None
    os.environ[CACHE] = folder = tempfile.mkdtemp(prefix="facefeat-tests-xla-")
    return folder


def heed_interrupts() -> None:
    """Lets Ctrl-C through to the programs that tests start and interrupt: a shell's background jobs ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# Modules whose signatures name shapes (facefeat_jax/models/arrays.py).
_TYPED = ("facefeat_jax.models", "facefeat_jax.training._losses", "facefeat_jax.evaluation.metrics")


def check_types() -> None:
    """Has every call of the typed modules checked against its signature; to be called before they are imported."""
    # An int is a float, as it is to type checkers.
    checker = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
    jaxtyping.install_import_hook(list(_TYPED), checker)


def settle() -> None:
    """Spares this process two things that cost a session minutes; to be called once all test modules are imported."""
    gc.collect()
    gc.freeze()  # the collector passes over what is there now: JAX has a million objects
    # For its limit the cache reads the age of each entry whenever one is added; it stays far below that.
    if "jax._src.lru_cache" in sys.modules:
        sys.modules["jax._src.lru_cache"].LRUCache._evict_if_needed = lambda self, **_: None


def tear_down(folder: str | None) -> None:
    """Removes what `set_up` made."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _flags() -> str:
    # A flag that XLA does not know kills the process, so another one is asked.
    both = f"{_ALWAYS} {_IF_KNOWN}"
    probe = "from jaxlib import xla_client; xla_client.make_cpu_client()"
    done = subprocess.run([sys.executable, "-c", probe], env={**os.environ, "XLA_FLAGS": both}, capture_output=True)
    return both if done.returncode == 0 else _ALWAYS
