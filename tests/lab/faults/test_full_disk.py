"""Disks that are full, on a small file system in memory; `make faults` tries whole training jobs there."""

from __future__ import annotations

import json
import os
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facefeat_jax.runs.checkpoints import Checkpoints
from facefeat_jax.runs.logs import Logs, read_lines
from facefeat_jax.system.errors import UserError

# What Orbax had under way when a file can't be read or written is left to the garbage collector, where pytest sees it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def disk(tmp_path):
    """Returns a function that gives a folder room for so many bytes, at first or anew, and the folder."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def give(num_bytes: int) -> None:
        options = f"size={num_bytes}" + (",remount" if os.path.ismount(folder) else "")
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip(f"mounting is not allowed here: {done.stderr.decode().strip()}")

    yield give, folder
    if os.path.ismount(folder):
        subprocess.run(["umount", "--lazy", folder], check=True)


def trees(step):
    noise = np.random.RandomState(step).standard_normal((256, 256)).astype(np.float32)
    model = {"params": {"w": jnp.asarray(noise)}, "batch_stats": {"mean": jnp.zeros(8)}}
    return {"model": model, "optimizer": {"optimizer": {"w": jnp.asarray(-noise)}, "step": jnp.int32(step)}}


def test_a_checkpoint_that_has_no_room_leaves_the_one_before(disk, capfd):
    give, folder = disk
    give(900_000)  # one takes 500 KB
    store = Checkpoints(folder, keep=1)
    store.save(1, trees(1), {"history": []})
    store.wait()
    with pytest.raises(UserError, match=r"a checkpoint can't be written to \S* \(No space left on device\).*--resume"):
        store.save(2, trees(2), {"history": []})
        store.wait()
    store.close()
    again = Checkpoints(folder, keep=1)
    found, _ = again.newest(lambda step: again.restore(step, trees(0)))
    jax.tree.map(np.testing.assert_array_equal, found, trees(1))
    give(4_000_000)
    again.save(2, trees(2), {"history": []})
    again.wait()
    assert again.steps() == [2]
    assert int(again.newest(lambda step: again.restore(step, trees(0)))[0]["optimizer"]["step"]) == 2
    again.close()


def test_logs_that_have_no_room_say_so_and_go_on_without_gaps(disk):
    give, folder = disk
    give(65536)

    def write(logs, steps):
        for step in steps:
            logs.write("train", step, 1, learning_rate=0.1, tasks={"shirt": {"loss": 1.0 / step, "accuracy": 0.5}})

    logs = Logs(folder / "metrics.jsonl", folder / "tensorboard")
    write(logs, range(1, 51))
    logs.sync()
    with pytest.raises(UserError, match=r"the logs in .*disk can't be written \(No space left on device\); make room"):
        write(logs, range(51, 2001))
    logs.close()
    give(1_000_000)
    logs = Logs(folder / "metrics.jsonl", folder / "tensorboard", start=50)
    write(logs, range(51, 1001))
    logs.sync()
    logs.close()
    assert [line["step"] for line in read_lines(folder / "metrics.jsonl")] == list(range(1, 1001))
    assert all(json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
