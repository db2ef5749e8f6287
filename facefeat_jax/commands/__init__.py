"""The commands of `facefeat`, a module each: `Arguments`, which `facefeat_jax.cli` parses, and `run`, which it calls.

Two of them are of use from Python as well: `train`, which trains and then writes the pages of the run, and `audit`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from facefeat_jax.system import public_names

if TYPE_CHECKING:
    from facefeat_jax.commands._audit import audit as audit
    from facefeat_jax.commands._train import train as train

public_names.attach(__name__)
