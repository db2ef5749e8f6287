"""One run on any number of devices and processes: the same weights, each picture read where it is needed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
SEQUENTIAL_STEPS, MIXED_STEPS = 8, 4  # two epochs of two batches, twice where one head comes after the other


def start(*arguments, devices, number=None, count=2, port=0):
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    if number is not None:
        environment |= {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(count),
            "JAX_PROCESS_ID": str(number),
        }
    command = [sys.executable, str(HERE / "on_devices.py"), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, cwd=HERE.parents[1], stderr=subprocess.PIPE, text=True)


def alone(*arguments, devices=8):
    process = start(*arguments, devices=devices)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err


def together(*arguments, devices=2, expected=(0, 0)):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [start(*arguments, devices=devices, number=number, port=port) for number in (0, 1)]
    errors = [process.communicate(timeout=600)[1] for process in processes]
    assert tuple(process.returncode for process in processes) == expected, "\n".join(errors)


def compare(found: Path, expected: Path, *, exactly=False):
    with np.load(found) as ours, np.load(expected) as theirs:
        assert set(ours) == set(theirs)
        for name in set(ours) - {"read"}:
            if exactly:
                np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
                continue
            scale = max(float(np.max(np.abs(theirs[name]))), 1e-30)
            np.testing.assert_allclose(ours[name] / scale, theirs[name] / scale, rtol=0, atol=1e-10, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("feed", ["stream", "device"])
@pytest.mark.parametrize("schedule", ["mixed", "sequential"])
def test_any_number_of_devices_and_processes_trains_the_same(avatars_dir, tmp_path, schedule, feed):
    """1, 2, 4 and 8 devices of one process, and two processes with two each, in float64."""
    for devices in (1, 2, 4, 8):
        alone(avatars_dir, tmp_path / f"{devices}", schedule, feed, devices)
    for devices in (2, 4, 8):
        compare(tmp_path / f"{devices}.0.npz", tmp_path / "1.0.npz")
    together(avatars_dir, tmp_path / "processes", schedule, feed, 0)
    for number in (0, 1):
        compare(tmp_path / f"processes.{number}.npz", tmp_path / "1.0.npz")
    shares = []
    for number in (0, 1):
        with np.load(tmp_path / f"processes.{number}.npz") as written:
            shares.append({name for name in written["read"] if "/train" in name})
    with np.load(tmp_path / "1.0.npz") as written:
        everything = {name for name in written["read"] if "/train" in name}
    assert shares[0] | shares[1] == everything
    if feed == "device":  # each picture lies on one device
        assert not shares[0] & shares[1]
        assert len(shares[0]) == 22 and len(shares[1]) == 21


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_devices_and_processes(avatars_dir, tmp_path):
    """Begun by two processes, one of which is killed; gone on with by one process on one device."""
    alone(avatars_dir, tmp_path / "whole", "mixed", "stream", 2)
    began = time.monotonic()
    with pytest.raises(AssertionError):
        together(avatars_dir, tmp_path / "run", "mixed", "stream", 0, "--stop-at", 3)
    assert time.monotonic() - began < 300
    assert not (tmp_path / "run.0.npz").exists()
    alone(avatars_dir, tmp_path / "run", "mixed", "stream", 1, "--resume")
    compare(tmp_path / "run.0.npz", tmp_path / "whole.0.npz")
