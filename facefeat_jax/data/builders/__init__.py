"""The data sets: one builder each, in a module of the data set's name. A module put beside these is a data set.

What another package or a notebook brings is made known by `add_builder`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from facefeat_jax.system.errors import UserError, unknown

if TYPE_CHECKING:
    from facefeat_jax.data.builders.base import PictureBuilder
    from facefeat_jax.data.sources import Source

Builder = TypeVar("Builder", bound="PictureBuilder")

OWN = "own.json"
"""Beside the records of somebody's own data set (`facefeat prepare folder`): what it is."""

_NO_DATA_SETS = {"base", "folder"}
_added: dict[str, type[PictureBuilder]] = {}


def list_sources() -> list[str]:
    """Returns the names of the data sets that there are builders for."""
    here = {module.name for module in pkgutil.iter_modules(__path__)} - _NO_DATA_SETS
    return sorted(here | _added.keys())


def add_builder(builder: type[Builder]) -> type[Builder]:
    """Makes a data set of your own known to this process, under its source's name; may stand as a decorator.

    Raises:
      UserError: the project has a data set of that name.
    """
    name = builder.SOURCE.name
    if name in list_sources() and name not in _added:
        raise UserError(f"data set {name!r} already exists; choose another name")
    _added[name] = builder
    return builder


def know(names: Iterable[str], data_dir: Path) -> None:
    """Makes those of the data sets known to this process, with their tasks, that were prepared of somebody's pictures.

    Args:
      names: of data sets; others are left alone.
      data_dir: where prepared data sets lie.

    Raises:
      UserError: a description can't be read, or its task is known already, as another one.
    """
    for name in filter(str.isidentifier, names):
        for path in data_dir.glob(f"{name}/*/{OWN}"):
            from facefeat_jax.data.builders.folder import read_own

            read_own(path).known()


def builder_class(name: str) -> type[PictureBuilder]:
    """Returns the builder of a data set.

    Raises:
      UserError: there is none of that name.
    """
    if name in _added:
        return _added[name]
    if name not in list_sources():
        raise unknown("data set", name, list_sources())
    module = importlib.import_module(f"{__name__}.{name}")
    from facefeat_jax.data.builders.base import PictureBuilder

    (builder,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, PictureBuilder) and value.__module__ == module.__name__
    )
    return builder


def get_source(name: str) -> Source:
    """Returns what there is to say of a data set.

    Raises:
      UserError: there is none of that name.
    """
    return builder_class(name).SOURCE


def is_downloaded(name: str) -> bool:
    """Returns whether a data set is one of the project's, and has to be downloaded."""
    return name in list_sources() and not get_source(name).is_drawn and not hasattr(builder_class(name), "OWN")


def is_drawn(name: str) -> bool:
    """Returns whether a data set is known here and drawn."""
    return name in list_sources() and get_source(name).is_drawn
