"""Programs compiled ahead."""

from __future__ import annotations

import jax
import pytest

from facefeat_jax.system.programs import Programs


def double():
    return jax.jit(lambda x: 2 * x).lower(jax.ShapeDtypeStruct((), "float32"))


class Watched:
    """A lowered program whose compiled form is the options that it is compiled with."""

    def compile(self, options):
        return options


def test_what_makes_a_program_deterministic_reaches_the_compiler():
    programs = Programs(deterministic=True)
    programs.add("options", Watched)
    assert programs.get("options") == {"xla_gpu_deterministic_ops": True}
    programs.add("double", double)  # XLA knows them
    assert programs.get("double")(jax.numpy.float32(2)) == 4
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_gpu_no_such_option"):
        double().compile({"xla_gpu_no_such_option": True})
    programs.close()
