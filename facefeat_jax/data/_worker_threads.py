"""Threads that decode, and that nobody waits for when the work is stopped."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def worker_threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Gives an executor; at the end its work is waited for, unless an exception or a signal ends it.

    `ThreadPoolExecutor`'s own `with` always waits. After Ctrl-C or SIGTERM that may be a minute: a thread inside a
    decoder can't be stopped, only left behind when the process ends (`main.end_process`).

    Args:
      count: number of threads.
    """
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown(wait=True)
