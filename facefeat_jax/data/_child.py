"""Processes that take part of a job off this one, over pipes.

Not multiprocessing's: forking is not safe beside JAX's threads, and spawning runs the calling script again where that
doesn't guard its main.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys


def start(module: str) -> subprocess.Popen[bytes]:
    """Starts a process that calls `_serve` of a module, with pipes to its standard input and from its standard output.

    Ctrl-C reaches it too, and it takes no notice: whoever started it ends it.
    """
    code = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); from {module} import _serve; _serve()"
    # What is imported here is found there.
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables)


def end(child: subprocess.Popen[bytes], wait_s: float = 0.0) -> None:
    """Ends a process, and closes its pipes.

    Args:
      child: which; no other thread may be reading or writing its pipes.
      wait_s: seconds that it may take from the closing of its standard input on; then it is killed.
    """
    if not wait_s:
        child.kill()
    for stream in (child.stdin, child.stdout):
        assert stream is not None
        with contextlib.suppress(BrokenPipeError):  # what it did not read
            stream.close()
    try:
        child.wait(wait_s or None)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
