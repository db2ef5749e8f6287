"""Programs compiled ahead."""

from __future__ import annotations

import jax
import pytest

from facefeat_jax.system.programs import Programs


def double():
    return jax.jit(lambda x: 2 * x).lower(jax.ShapeDtypeStruct((), "float32"))


def test_what_makes_a_program_deterministic_reaches_the_compiler():
    programs = Programs(deterministic=True)
    programs.add("double", double)
    assert programs.get("double")(jax.numpy.float32(2)) == 4
    assert programs._options == {"xla_gpu_deterministic_ops": True}
    programs._options = {"xla_gpu_no_such_option": True}
    programs.add("refused", double)
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_gpu_no_such_option"):
        programs.get("refused")
    programs.close()
