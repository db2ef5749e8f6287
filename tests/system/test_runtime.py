"""How many CPU devices a command computes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({}, 1), ({"JAX_NUM_CPU_DEVICES": "2"}, 2), ({"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}, 3)],
)
def test_one_cpu_device_unless_more_are_asked_for(variables, expected, tmp_path):
    """However many cores there are: two of them, asked for by nobody, aborted `audit` on a busy machine."""
    own = {name: value for name, value in os.environ.items() if name not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")}
    environment = {**own, "JAX_PLATFORMS": "cpu", "FACEFEAT_CACHE": str(tmp_path), **variables}
    command = [sys.executable, "-m", "facefeat_jax.cli", "doctor", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    devices = [name for name in json.loads(done.stdout)["devices"] if name.startswith("device ")]
    assert devices == [f"device {number}" for number in range(expected)]
