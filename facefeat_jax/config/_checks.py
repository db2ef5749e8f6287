"""Kind and bounds of each field, checked whoever gives the value: the command line, Python or a config.json."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from facefeat_jax.system import kinds
from facefeat_jax.system.errors import UserError, unknown


@dataclass(frozen=True)
class Bounds:
    """What a number may be. It stands beside its field: `epochs: Annotated[int, Bounds(least=1)]`."""

    least: float | None = None  # smallest value
    above: float | None = None  # what the value must be more than
    most: float | None = None  # largest value
    below: float | None = None  # what the value must be less than; infinity admits all finite numbers

    def __contains__(self, value: float) -> bool:
        # Written so that NaN, which is neither more nor less than anything, is outside.
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        limits = []
        if self.least is not None:
            limits.append(f"{self.least} or more")
        if self.above is not None:
            limits.append(f"more than {self.above}" if self.above else "positive")
        if self.most is not None:
            limits.append(f"{self.most} or less")
        if self.below not in (None, math.inf):
            limits.append(f"less than {self.below}")
        return " and ".join(limits)


class Checked:
    """A frozen dataclass that checks its fields when it is made, and brings their values to plain types.

    Raises:
      UserError: a value is not of its field's kind, or out of its bounds.
    """

    def __post_init__(self) -> None:
        own: type = type(self)
        for name, (kind, bounds) in _fields(own).items():
            value = getattr(self, name)
            if isinstance(kind, type) and dataclasses.is_dataclass(kind):
                if not isinstance(value, kind):
                    raise UserError(f"{name} of a config takes a {kind.__name__}, got {value!r}")
            elif get_origin(kind) is Literal:
                if value not in get_args(kind):
                    raise unknown(f"value of {option(name)}", str(value), get_args(kind))
            elif wanted := kinds.fault(value, kind):
                raise UserError(f"{option(name)} takes {wanted}, got {value!r}")
            else:
                try:
                    object.__setattr__(self, name, kinds.plain(value, kind))
                except OverflowError as error:
                    raise UserError(f"{option(name)} takes a number that a float can hold") from error
            for one in bounds:
                if value is not None and value not in one:
                    raise UserError(f"{option(name)} must be {one}, got {value}")


def option(name: str) -> str:
    """Returns the command line's option for a field: `--batch-size` for `batch_size`."""
    return f"--{name.replace('_', '-')}"


@functools.cache
def _fields(checked: type) -> dict[str, tuple[Any, list[Bounds]]]:
    """Returns the kind and the bounds of each field."""
    kinds_of, annotated = get_type_hints(checked), get_type_hints(checked, include_extras=True)
    return {
        name: (kind, [one for one in getattr(annotated[name], "__metadata__", ()) if isinstance(one, Bounds)])
        for name, kind in kinds_of.items()
    }
