"""The body of a command: the exit codes that stand for its errors, and how its process ends."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from facefeat_jax.system import signals, streams
from facefeat_jax.system.errors import Interrupted, UserError
from facefeat_jax.system.escape import one_line
from facefeat_jax.system.extras import what_to_install


def run_main(main: Callable[[], int | None]) -> int:
    """Runs the body of a command and returns its exit code: 2 after a `UserError`, 130 and 143 after signals.

    Memory that has run out, and variables of the environment that JAX can't use, are bad input too.

    A second signal ends the process at once.

    A module that is missing because its extra is not installed is a `UserError` too.

    Faults of ours are not caught: they show their traceback, and Python exits with 1.
    """
    try:
        with signals.handled():
            code = main() or 0
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where what can't be written is still an error of the command
            return code
    except UserError as error:
        # One line, also where a library's message is quoted in it.
        print(f"facefeat: {one_line(' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if (advice := what_to_install(error)) is None:
            raise
        print(f"facefeat: {advice}", file=sys.stderr)
        return 2
    except MemoryError:
        print("facefeat: memory has run out; close other programs, or give fewer or smaller pictures", file=sys.stderr)
        return 2
    except (RuntimeError, ValueError, AssertionError) as error:
        if (line := _jax_setting(error)) is None:
            raise
        print(f"facefeat: {one_line(line)}", file=sys.stderr)
        return 2
    except Interrupted as stopped:
        print(f"facefeat: {one_line(str(stopped))}", file=sys.stderr)
        return stopped.exit_code
    except signals.Terminated:
        print("facefeat: stopped", file=sys.stderr)
        return 143
    except KeyboardInterrupt:
        print("facefeat: stopped", file=sys.stderr)
        return 130
    except OSError:
        if (failure := streams.output_failure()) is None:
            raise
        if isinstance(failure, BrokenPipeError):
            return 0  # whoever read our output has gone (`| head`)
        reason = f"({failure.strerror}); the answer is not complete"
        print(f"facefeat: standard output can't be written {reason}", file=sys.stderr)
        return 2


def _jax_setting(error: Exception) -> str | None:
    """Returns one line for an error that a variable of the environment for JAX led to; None for any other."""
    frames = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    given = ", ".join(
        f"{name}={value!r}" for name, value in sorted(os.environ.items()) if name.startswith(("JAX_", "XLA_"))
    )
    # Where JAX reads its settings, and where it looks for devices.
    if not given or not frames or frames[-1] not in ("jax._src.config", "jax._src.xla_bridge"):
        return None
    reason = " ".join(str(error).split()) or "a requested platform is not available"
    return f"JAX can't use the settings in the environment ({given}): {reason}; unset or correct it"


def end_process(code: int) -> NoReturn:
    """Ends the process with a command's exit code.

    After a signal without the interpreter's own ending: threads that are in the middle of something then (Orbax's, or
    XLA's) are thrown out of C++ code that lets nothing through, which aborts the process.
    """
    if code > 128:
        end_at_once(code)
    sys.exit(code)


def end_at_once(code: int) -> NoReturn:
    """Ends the process without waiting for its threads; what was printed is out."""
    with contextlib.suppress(Exception):  # whatever they stand for, the code is that of the command
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def run_and_exit(main: Callable[[], int | None]) -> NoReturn:
    """Runs the body of a command as the whole process: `streams.set_up`, `run_main`, then `end_process`."""
    streams.set_up()
    end_process(run_main(main))
