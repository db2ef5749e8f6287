"""Models from and to other frameworks."""

from typing import TYPE_CHECKING

from facefeat_jax.system import public_names

if TYPE_CHECKING:
    from facefeat_jax.exporting.conversion import Converted as Converted
    from facefeat_jax.exporting.conversion import convert as convert
    from facefeat_jax.exporting.conversion import export as export

public_names.attach(__name__)
