"""What ends a command before it is done."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input or a wrong call: the message is one line that says what is wrong, where, and what to do.

    A command prints it without a traceback and exits with 2.
    """


class Interrupted(Exception):
    """A signal stopped the work. It can be resumed.

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
