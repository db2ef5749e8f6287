"""Standard input, output and error of a command: what happens where they are closed, full, or of another encoding."""

from __future__ import annotations

import codecs
import io
import os
import sys

from facefeat_jax.system.errors import UserError

_ERRORS = "facefeat-as-it-came"


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


def set_up() -> None:
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


def output_failure() -> OSError | None:
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
