"""How many CPU devices a command computes on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from facefeat_jax.runtime import cores

_PROGRAM = """
import sys
from facefeat_jax.runtime import start_up
import jax
if "late" in sys.argv:
    jax.devices()
start_up(alone="member" not in sys.argv)
print(jax.device_count())
"""


@pytest.mark.parametrize(
    ("words", "variables", "expected"),
    [
        ((), {}, min(2, cores())),
        ((), {"JAX_NUM_CPU_DEVICES": "1"}, 1),
        ((), {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}, 3),
        (("member",), {}, 1),  # of several processes, which share the cores
        (("late",), {}, 1),  # JAX computes already
    ],
)
def test_two_cpu_devices_unless_told_otherwise(words, variables, expected, tmp_path):
    own = {name: value for name, value in os.environ.items() if name not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")}
    environment = {**own, "JAX_PLATFORMS": "cpu", "FACEFEAT_CACHE": str(tmp_path), **variables}
    command = [sys.executable, "-c", _PROGRAM, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(expected)]
