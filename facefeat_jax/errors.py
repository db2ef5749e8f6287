"""The one exception for what a user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input or a wrong call: the message is one line that says what is wrong, where, and what to do.

    The command line prints it without a traceback and exits with 2.
    """


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Returns the error for a name that is not among the known ones; it suggests the nearest."""
    names = list(known)
    match = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    suggestion = f" Did you mean {match[0]!r}?" if match else ""
    return UserError(f"unknown {kind} {name!r}.{suggestion} Known: {', '.join(names)}")
