"""Settings of JAX and of the process that a command makes before the first computation."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from facefeat_jax.system.errors import UserError

_ASK_XLA = "from jaxlib import xla_client; xla_client.CompileOptions()"  # the first thing that reads XLA_FLAGS
_MOST_CPU_DEVICES = 1024  # 100,000 take ten minutes to make, in which no signal is heeded
_LOG_PREFIX = re.compile(r"^[EF]\d{4} [^]]*\] ")

# The parameters of glibc's mallopt(3) that are set, and to what.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_SETTINGS = {
    _MMAP_MAX: 0,  # no block of its own from the kernel, which goes back when freed
    _TRIM_THRESHOLD: -1,  # never shrink the main thread's store
    _TOP_PAD: 2**27,  # nor those of other threads: twice what a piece of theirs has at most, so that none goes back
    _ARENA_MAX: 8,  # stores, each of which keeps the most it had; with a single one, XLA's compiling threads queue
}


def cache_dir() -> Path:
    """Returns the folder of what can be made or fetched again: `$FACEFEAT_CACHE`, else one in the user's cache."""
    if explicit := os.environ.get("FACEFEAT_CACHE"):
        return Path(explicit).expanduser()
    # The XDG rules: a relative path counts as unset.
    shared = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(shared) if os.path.isabs(shared) else Path.home() / ".cache") / "facefeat_jax"


def compilation_cache_dir() -> Path:
    """Returns the folder of compiled programs."""
    return cache_dir() / "xla"


def require_usable_environment() -> None:
    """Refuses what JAX would take without a word, and what XLA ends the process for; the rest JAX refuses itself.

    XLA reads `XLA_FLAGS` when it is first used, and ends the process where it knows one of them not. So another process
    is asked, in a quarter of a second, where the variable is set.

    Raises:
      UserError: a variable can't be used.
    """
    devices = os.environ.get("JAX_NUM_CPU_DEVICES", "")
    # JAX reads every negative number as its default, -1, has no upper bound, and itself refuses what is no number.
    if devices != "-1" and re.fullmatch(r"-?[0-9]{1,99}", devices) and not 1 <= int(devices) <= _MOST_CPU_DEVICES:
        raise UserError(f"JAX_NUM_CPU_DEVICES={devices!r} must be 1 to {_MOST_CPU_DEVICES}; unset or correct it")
    flags = os.environ.get("XLA_FLAGS", "")
    if flags.strip() and "jax" not in sys.modules:  # else it is too late to ask
        asked = subprocess.run([sys.executable, "-c", _ASK_XLA], capture_output=True, text=True, errors="replace")
        said = [line for line in asked.stderr.splitlines() if _LOG_PREFIX.match(line)]
        if asked.returncode and said:
            raise UserError(f"XLA can't use XLA_FLAGS={flags!r} ({_LOG_PREFIX.sub('', said[0])}); unset or correct it")


def start_up() -> None:
    """Makes this process fast: programs are kept between processes, and memory between steps."""
    use_compilation_cache()
    keep_memory_between_steps()


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_compilation_cache() -> None:
    """Keeps compiled programs from one process to the next, unless the user has set JAX's own variable."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    import jax

    jax.config.update("jax_compilation_cache_dir", str(compilation_cache_dir()))
    # All of them: those that compile in less than JAX's default of a second add up to several.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def set_numerics(dtype: str, param_dtype: str, matmul_precision: str) -> None:
    """Sets what a run's types and precision ask of JAX, for the whole process.

    Args:
      dtype: dtype of the computation; `float64` switches 64-bit types on, without which JAX would take float32 for it.
      param_dtype: dtype of the parameters; likewise.
      matmul_precision: precision of float32 products; `default` leaves JAX's setting as it is.
    """
    import jax

    if "float64" in (dtype, param_dtype):
        jax.config.update("jax_enable_x64", True)
    if matmul_precision != "default":
        jax.config.update("jax_default_matmul_precision", matmul_precision)


def keep_freed_memory() -> bool:
    """Tells glibc's allocator to keep what is freed, for the whole process; to be called before threads are started.

    glibc hands large blocks back to the kernel as soon as they are freed, and XLA on CPU frees what a step computed
    with when it ends: the next step gets the same memory page by page, each cleared by the kernel. In a ResNet18's
    training step at 224 pixels that was an eighth of the CPU time.

    Blocks beyond 64 MiB are kept in the main thread alone. A process then holds on to the most memory it ever used,
    as do the stores of its threads, eight in all. Nothing is done where the user has set glibc's allocator up
    (`GLIBC_TUNABLES` or a `MALLOC_` variable), and on other C libraries.

    Returns:
      Whether the settings were made.
    """
    if platform.libc_ver()[0] != "glibc" or any(
        name.startswith("MALLOC_") or (name == "GLIBC_TUNABLES" and "glibc.malloc." in value)
        for name, value in os.environ.items()
    ):
        return False
    libc = ctypes.CDLL(None)
    return all([libc.mallopt(parameter, value) == 1 for parameter, value in _SETTINGS.items()])


def keep_memory_between_steps() -> None:
    """Keeps what is freed (`keep_freed_memory`), and has programs on CPU compute in the thread that calls them.

    JAX hands them to a thread of its own, where large blocks are not kept: in steps at 64 pixels, 114 MiB were cleared
    anew each time. One step is in memory at a time then, in place of two. Accelerators are not affected. JAX's own
    variable for this, `JAX_CPU_ENABLE_ASYNC_DISPATCH`, stays as the user has set it.
    """
    if keep_freed_memory() and "JAX_CPU_ENABLE_ASYNC_DISPATCH" not in os.environ:
        import jax

        jax.config.update("jax_cpu_enable_async_dispatch", False)


def give_back_freed_memory() -> None:
    """Hands what is free back to the kernel, from all threads' stores; does nothing on other C libraries than glibc."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
