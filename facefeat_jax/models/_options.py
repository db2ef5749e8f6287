"""Functions that make a trunk of a class: their options are those of the class, by name, in `help` and in messages."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from facefeat_jax.models._checks import WrongCallError, no_such
from facefeat_jax.models._promotion import set_up
from facefeat_jax.models.trunk import Trunk, TrunkOptions

P = ParamSpec("P")
R = TypeVar("R", bound=Trunk)


def options_of(kind: type[Trunk], decided: tuple[str, ...] = ()) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Returns a decorator of functions whose options are the keywords of a class of trunks but for the `decided` ones.

    `help` then lists them by name, and an option that there is not is refused with what there is.
    """
    own = (*_OWN, *decided)
    signature = inspect.signature(kind.__init__)
    parameters = [one for one in signature.parameters.values() if one.kind is one.KEYWORD_ONLY and one.name not in own]
    described = {**_described(TrunkOptions), **_described(kind)}

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = function.__name__

        @functools.wraps(function)
        def make(*arguments: P.args, **options: P.kwargs) -> R:
            if arguments:
                raise WrongCallError(
                    f"{name} takes options by name only, such as num_classes=10, got {arguments!r:.60}"
                )
            for option in options:
                if option in ("weights", "pretrained"):
                    raise WrongCallError(
                        f"{name} starts from random weights: facefeat_jax.create_classifier({name!r}, "
                        "weights='imagenet') loads published ones"
                    )
                if option not in names:
                    raise WrongCallError(f"{name} has {no_such('option', option, names)} Options: {', '.join(names)}")
            if "rngs" not in options:
                raise WrongCallError(f"{name} needs rngs, the source of its initial weights: rngs=flax.nnx.Rngs(0)")
            with set_up():
                return function(*arguments, **options)

        names = [one.name for one in parameters]
        make.__signature__ = inspect.Signature(parameters, return_annotation=kind)  # type: ignore[attr-defined]
        rows = [f"  {option}: {described[option]}" for option in names if option in described]
        make.__doc__ = "\n".join([f"{inspect.getdoc(function)}", "", "Args:", *rows])
        return make

    return decorate


# What every function decides itself.
_OWN = ("block", "table", "groups", "width_per_group", "head")


def _described(kind: type[Any]) -> dict[str, str]:
    """Returns what a class's docstring says of its arguments or attributes, each on one line."""
    text = inspect.getdoc(kind) or ""
    section = re.search(r"^(?:Args|Attributes):\n((?: .*\n?|\n)+)", text, re.MULTILINE)
    found = re.findall(r"^  (\w+): ((?:.*\n?)(?:    .*\n?)*)", section[1] if section else "", re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in found}
