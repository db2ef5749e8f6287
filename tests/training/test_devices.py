"""One run on any number of devices and processes: the same weights, each picture read where it is needed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from facefeat_jax.runs import _about as about
from facefeat_jax.system.environment import device_names
from facefeat_jax.training.loop import train

pytestmark = pytest.mark.long

HERE = Path(__file__).parent


def start(*arguments, devices, number=None, count=2, port=0):
    environment = {
        **os.environ,
        "JAX_NUM_CPU_DEVICES": str(devices),
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


def together(*arguments, devices=2):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [start(*arguments, devices=devices, number=number, port=port) for number in (0, 1)]
    errors = [process.communicate(timeout=600)[1] for process in processes]
    return tuple(process.returncode for process in processes), errors


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
    codes, errors = together(avatars_dir, tmp_path / "processes", schedule, feed, 0)
    assert codes == (0, 0), "\n".join(errors)
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
    codes, _ = together(avatars_dir, tmp_path / "run", "mixed", "stream", 0, "--kill-at", 3)
    assert codes[1] == -signal.SIGKILL
    assert codes[0] not in (0, 2)  # ended from C++, when the heartbeat of the other had stopped
    assert time.monotonic() - began < 300
    assert not (tmp_path / "run.0.npz").exists()
    alone(avatars_dir, tmp_path / "run", "mixed", "stream", 1, "--resume")
    compare(tmp_path / "run.0.npz", tmp_path / "whole.0.npz")


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_after_the_same_step(avatars_dir, tmp_path):
    """Gone on with by two processes, to the same bits as without the signal."""
    together(avatars_dir, tmp_path / "whole", "sequential", "stream", 0)
    codes, errors = together(avatars_dir, tmp_path / "run", "sequential", "stream", 0, "--terminate-at", 3)
    assert codes == (143, 143), "\n".join(errors)
    step = re.search(r"stopped at step (\d) of 8", errors[0]).group(0)
    assert step in errors[1]
    codes, errors = together(avatars_dir, tmp_path / "run", "sequential", "stream", 0, "--resume")
    assert codes == (0, 0), "\n".join(errors)
    compare(tmp_path / "run.0.npz", tmp_path / "whole.0.npz", exactly=True)


def test_a_run_that_goes_on_with_other_devices_says_so(trained_run, tiny, tmp_path, capsys):
    run = Path(shutil.copytree(trained_run, tmp_path / "run"))
    before, newest = sorted((run / "checkpoints").iterdir(), key=lambda path: int(path.name))
    shutil.rmtree(newest)
    content = about.read(before).content
    about.replace(before, {**content, "devices": "H100 x4"}, content["digests"])
    train(tiny(run, resume=True))
    said = capsys.readouterr().err
    assert f"trained on H100 x4 until now, and continues on {device_names()}" in said
    train(tiny(run, resume=True))  # from the checkpoint that these devices wrote
    assert "the run was trained on" not in capsys.readouterr().err


@pytest.mark.slow
def test_the_launcher_says_which_process_died_and_the_run_goes_on(avatars_dir, tmp_path):
    fields = ["--run", str(tmp_path / "run"), "--data-dir", str(avatars_dir), "--image-size", "32", "--batch-size", "8"]
    fields += ["--epochs", "2", "--checkpoint-every", "2", "--trainable", "none", "--weights", "random"]
    environment = {
        **os.environ,
        "JAX_NUM_CPU_DEVICES": "2",
        "JAX_PLATFORMS": "cpu",
    }

    def launch(*more):
        command = [sys.executable, "-m", "facefeat_jax.cli", "launch", "2", "--heartbeat-s", "10", "--", "avatars"]
        return subprocess.Popen(
            [*command, *fields, *more], env=environment, cwd=HERE.parents[1], stderr=subprocess.PIPE, text=True
        )

    process = launch()
    deadline = time.monotonic() + 300
    while not list((tmp_path / "run" / "checkpoints").glob("[0-9]")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    psutil.Process(process.pid).children()[1].kill()
    killed = time.monotonic()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    assert time.monotonic() - killed < 10 + 25
    (said,) = [line for line in err.splitlines() if "To continue" in line]
    assert "process 1 of 2 was killed by SIGKILL; the others ended within" in said and said.endswith("--resume")
    process = launch("--resume")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert json.loads((tmp_path / "run" / "results.json").read_text())["steps"] == 12


@pytest.mark.slow
def test_no_two_programs_over_several_cpu_devices_are_in_flight_at_once(avatars_dir, tmp_path):
    """XLA's threads, of which there is one for each core, would wait for one another for good."""
    command = [sys.executable, str(HERE / "in_turn.py"), str(avatars_dir), str(tmp_path / "run")]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, cwd=HERE.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) > 30
