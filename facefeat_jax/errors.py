"""What ends a command before it is done, and the exit codes that stand for it."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

from facefeat_jax import signals
from facefeat_jax.escape import one_line
from facefeat_jax.extras import what_to_install


class UserError(Exception):
    """Bad input or a wrong call: the message is one line that says what is wrong, where, and what to do.

    A command prints it without a traceback and exits with 2.
    """


class Interrupted(Exception):
    """A signal stopped the work, and it can be gone on with.

    Attributes:
      exit_code: 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, signal_number: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + signal_number


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Returns the error for a name that is not among the known ones; it suggests the nearest."""
    names = list(known)
    match = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    suggestion = f" Did you mean {match[0]!r}?" if match else ""
    return UserError(f"unknown {kind} {name!r}.{suggestion} Known: {', '.join(names)}")


def run_main(main: Callable[[], int | None]) -> int:
    """Runs the body of a command and returns its exit code: 2 after a `UserError`, 130 and 143 after signals.

    A second signal ends the process at once.

    A module that is missing because its extra is not installed is a `UserError` too.

    Faults of ours are not caught: they show their traceback, and Python exits with 1.
    """
    try:
        with signals.handled():
            return main() or 0
    except UserError as error:
        # One line, also where a library's message is quoted in it.
        print(f"facefeat: {one_line(' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if (advice := what_to_install(error)) is None:
            raise
        print(f"facefeat: {advice}", file=sys.stderr)
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
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`); Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


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
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run_and_exit(main: Callable[[], int | None]) -> NoReturn:
    """Runs the body of a command as the whole process: `run_main`, then `end_process`."""
    end_process(run_main(main))
