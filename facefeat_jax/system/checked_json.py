"""JSON that later commands go by: read strictly, and with a digest that shows whether it is as it was written.

A checked file is an object with two members beside its content: `format`, the version of this scheme, and `sha256`,
the digest of all the rest. Either of them says that there has to be the other, so that no single flipped bit makes a
checked file look like one of an earlier version, which had neither. The digest is over the values, not over the text:
line ends and indentation don't count.

    write_json(path, with_digest(content))
    content, is_checked = read_checked(path)
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from facefeat_jax.system.files import read_regular

FORMAT = 2
"""The version of the scheme; 1 was without digests."""

MAX_BYTES = 64 * 2**20
"""The default size of the largest file that is read."""

_MAX_DEPTH = 32
_FORMAT, _DIGEST = "format", "sha256"


class Checked(NamedTuple):
    """The content of a file."""

    content: dict[str, Any]  # without `format` and `sha256`
    is_checked: bool  # whether it had a digest, which was right; False for a file of an earlier version


def parse(text: bytes | str) -> Any:
    """Reads JSON as the standard has it: UTF-8, no NaN and no infinity, each name once in an object, no deep nesting.

    Raises:
      ValueError: it is not that.
    """
    try:
        value = json.loads(
            text.decode() if isinstance(text, bytes) else text,
            object_pairs_hook=_members,
            parse_float=_finite,
            parse_constant=_finite,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _require_flat(value, _MAX_DEPTH)
    return value


def read(path: Path, *, most_bytes: int = MAX_BYTES) -> Any:
    """Reads a file as `parse` does.

    Raises:
      OSError: the file can't be read, is no regular file or is too large.
      ValueError: it is not JSON.
    """
    return parse(read_regular(path, most_bytes))


def with_digest(content: Mapping[str, Any], *, editable: Collection[str] = ()) -> dict[str, Any]:
    """Returns the content with `format` and `sha256`.

    Args:
      content: what `json` can write; none of its numbers is infinite or NaN.
      editable: members that the digest does not cover, so that they may be changed by hand.

    Raises:
      ValueError: a number is infinite or NaN.
    """
    values = {_FORMAT: FORMAT, **content}
    return {**values, _DIGEST: _digest(values, editable)}


def finite(value: Any) -> Any:
    """Returns a value with its infinite numbers and NaN as text, `inf`, `-inf` and `nan`: JSON has no numbers for them.

    `float` makes the numbers of the texts again.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {name: finite(member) for name, member in value.items()}
    return [finite(member) for member in value] if isinstance(value, list | tuple) else value


def checked(values: Any, *, editable: Collection[str] = ()) -> Checked:
    """Returns what `with_digest` was given, or the content of a file that an earlier version wrote without a digest.

    Args:
      values: content of the file.
      editable: as for `with_digest`.

    Raises:
      ValueError: it is not what was written.
    """
    if not isinstance(values, dict):
        raise ValueError("it is not a JSON object")
    content = {name: value for name, value in values.items() if name not in (_FORMAT, _DIGEST)}
    version = values.get(_FORMAT, 1)
    if _DIGEST not in values and version == 1 and not isinstance(version, bool | float):
        return Checked(content, is_checked=False)
    if values.get(_DIGEST) != _digest({n: v for n, v in values.items() if n != _DIGEST}, editable):
        raise ValueError("its digest does not match its content: it was changed or damaged")
    if version != FORMAT:
        raise ValueError(f"it has format {version}, this version reads {FORMAT}")
    return Checked(content, is_checked=True)


def read_checked(path: Path, *, editable: Collection[str] = (), most_bytes: int = MAX_BYTES) -> Checked:
    """Reads a file whose values `with_digest` made.

    Raises:
      OSError: as `read`.
      ValueError: it is not JSON, or not what was written.
    """
    return checked(read(path, most_bytes=most_bytes), editable=editable)


def _digest(values: Mapping[str, Any], editable: Collection[str]) -> str:
    covered = {name: value for name, value in values.items() if name not in editable}
    text = json.dumps(covered, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name appears twice in one object")
    return members


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not a valid number")
    return value


def _require_flat(value: Any, depth: int) -> None:
    if not isinstance(value, dict | list):
        return
    if not depth:
        raise ValueError("it is nested too deeply")
    for member in value.values() if isinstance(value, dict) else value:
        _require_flat(member, depth - 1)
