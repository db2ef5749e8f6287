"""A command's process: its standard streams (closed, full, of another encoding), its exit codes, and how it ends."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from facefeat_jax.system import signals
from facefeat_jax.system.errors import Interrupted, UserError, what_to_install
from facefeat_jax.system.text import one_line

_ERRORS = "facefeat-as-it-came"


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
        if (failure := _output_failure()) is None:
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
    """Runs the body of a command as the whole process: `set_up_streams`, `run_main`, then `end_process`."""
    set_up_streams()
    end_process(run_main(main))


class _In(io.FileIO):
    """Standard input: what can't be read is bad input, in one line."""

    def readinto(self, buffer):
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise UserError(f"standard input can't be read ({error.strerror}); give it something to read") from error


class _Err(io.FileIO):
    """Standard error: notes that can't be written stop nothing."""

    def write(self, content):
        try:
            return super().write(content)
        except OSError:
            return len(content)


def set_up_streams() -> None:
    """Makes this process's standard streams safe to use; to be called once, by a command that is the whole process.

    A stream that is closed gives an error when it is used, and its number is taken, so that no file that is opened
    later gets what is printed. A name that the terminal's encoding lacks goes out as the bytes that it came in as.
    """
    for number, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # The wrong way round: reading from what is only to be written is the error that is wanted.
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    codecs.register_error(_ERRORS, _as_it_came)
    lines = io.BufferedReader(_In(0, closefd=False))
    sys.stdin = io.TextIOWrapper(lines, getattr(sys.stdin, "encoding", None) or "utf-8", "surrogateescape")
    sys.stdout = _text(io.FileIO(1, "w", closefd=False), sys.stdout, _ERRORS)
    sys.stderr = _text(_Err(2, "w", closefd=False), sys.stderr, "backslashreplace")


def _output_failure() -> OSError | None:
    """Returns why standard output can't be written, where it can't, and drops what is left to be written."""
    if sys.stdout is None:
        return None
    try:
        # What could not be written is still in the buffer. (A write method of our own could not tell: a signal that is
        # handled as it returns would have the same bytes written twice.)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes once more when it ends
        return error
    return None


def _text(raw: io.FileIO, before: object, errors: str) -> io.TextIOWrapper:
    encoding = getattr(before, "encoding", None) or "utf-8"
    interactive = raw.isatty() or errors != _ERRORS
    unbuffered = bool(getattr(before, "write_through", False))
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, errors, line_buffering=interactive, write_through=unbuffered
    )


def _as_it_came(error: UnicodeError) -> tuple[bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    return error.object[error.start : error.end].encode("utf-8", "surrogateescape"), error.end
