"""Settings of JAX and of the process that a command makes before the first computation."""

from __future__ import annotations

import os
from pathlib import Path

from facefeat_jax.system.allocator import keep_freed_memory


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


def start_up() -> None:
    """Makes this process fast: programs are kept between processes, and memory between steps."""
    use_compilation_cache()
    keep_freed_memory()


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
      dtype: of the computation; `float64` switches 64-bit types on, without which JAX would take float32 for it.
      param_dtype: of the parameters; likewise.
      matmul_precision: of float32 products; `default` leaves JAX's setting as it is.
    """
    import jax

    if "float64" in (dtype, param_dtype):
        jax.config.update("jax_enable_x64", True)
    if matmul_precision != "default":
        jax.config.update("jax_default_matmul_precision", matmul_precision)
