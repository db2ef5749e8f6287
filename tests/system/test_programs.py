"""Programs compiled ahead."""

from __future__ import annotations

import threading

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


@pytest.mark.parametrize("cores", [2, 8])
def test_later_programs_leave_few_cores_to_the_first(monkeypatch, cores):
    begun = {name: threading.Event() for name in ("first", "later", "asked for")}

    def lower(name):
        begun[name].set()
        return Watched()

    monkeypatch.setattr("os.cpu_count", lambda: cores)
    programs = Programs()
    programs.add("first", lambda: lower("first"))
    programs.add_later("later", lambda: lower("later"))
    programs.add_later("first", lambda: pytest.fail("it was added before"))
    programs.get("first")
    assert begun["later"].wait(0.2) == (cores == 8)
    programs.begin_later()
    assert begun["later"].wait(10)
    programs.add_later("asked for", lambda: lower("asked for"))
    assert programs.get("asked for") is None
    programs.close()
