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


@pytest.mark.parametrize(
    ("words", "variables", "reason"),
    [
        ("doctor", {"JAX_NUM_CPU_DEVICES": "-5"}, "JAX_NUM_CPU_DEVICES='-5' must be 1 to 1024"),
        ("doctor", {"JAX_NUM_CPU_DEVICES": "0"}, "JAX_NUM_CPU_DEVICES='0' must be 1 to 1024"),
        ("launch 1 -- avatars", {"JAX_NUM_CPU_DEVICES": "100000"}, "'100000' must be 1 to 1024"),
        ("doctor", {"XLA_FLAGS": "--nonsense"}, "XLA_FLAGS='--nonsense' (Unknown flag in XLA_FLAGS: --nonsense)"),
        ("launch 1 -- avatars", {"XLA_FLAGS": "--xla_backend_optimization_level=x"}, "Couldn't interpret value x"),
    ],
)
def test_variables_that_xla_would_end_the_process_for_are_refused_in_one_line(words, variables, reason):
    done = subprocess.run(
        [sys.executable, "-m", "facefeat_jax.cli", *words.split()],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert line.startswith("facefeat: ") and reason in line and line.endswith("; unset or correct it")


def test_help_and_what_loads_no_jax_need_no_usable_flags(tmp_path):
    for words in (
        ["--help"],
        ["train", "avatars", "--help"],
        ["prepare", "avatars", "--data-dir", str(tmp_path), "-h"],
    ):
        command = [sys.executable, "-m", "facefeat_jax.cli", *words]
        assert (
            subprocess.run(command, env={**os.environ, "XLA_FLAGS": "--nonsense"}, capture_output=True).returncode == 0
        )
