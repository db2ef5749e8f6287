"""Models from and to other frameworks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facefeat_jax.system import lazy

if TYPE_CHECKING:
    from facefeat_jax.exporting.conversion import Converted, convert, export

_MODULES = {
    "facefeat_jax.exporting.conversion": ["Converted", "convert", "export"],
}

__all__ = [
    "Converted",
    "convert",
    "export",
]

__getattr__, __dir__ = lazy.names(__name__, _MODULES)
