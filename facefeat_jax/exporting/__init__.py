"""Models from and to other frameworks and runtimes."""

from typing import TYPE_CHECKING

from facefeat_jax.system import public_names

if TYPE_CHECKING:
    from facefeat_jax.exporting._agreement import Agreement as Agreement
    from facefeat_jax.exporting.conversion import Converted as Converted
    from facefeat_jax.exporting.conversion import convert as convert
    from facefeat_jax.exporting.conversion import export as export
    from facefeat_jax.exporting.hub import push as push
    from facefeat_jax.exporting.int8 import Quantized as Quantized
    from facefeat_jax.exporting.int8 import export_int8 as export_int8
    from facefeat_jax.exporting.portable import export_portable as export_portable

public_names.attach(__name__)
