"""Checkpoints: what is kept, how damage is found, and what is used then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facefeat_jax.runs import _about as about_item
from facefeat_jax.runs.checkpoints import Checkpoints, DamagedError, best_step
from facefeat_jax.system.errors import UserError

ROOT = Path(__file__).resolve().parents[2]

# What Orbax had under way when a file can't be read or written is left to the garbage collector, where pytest sees it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def trees(step: int, fill: float = 1.0) -> dict:
    noise = fill * jnp.asarray(np.random.RandomState(0).standard_normal((64, 64)), jnp.float32)
    params = {"trunk": {"conv1": noise}, "heads": {"shirt": jnp.full((8,), 0.5, jnp.bfloat16)}}
    return {
        "model": {"params": params, "batch_stats": {"trunk": {"mean": jnp.arange(64.0)}}},
        "optimizer": {"optimizer": {"trunk": {"mu": -noise, "count": jnp.int32(3)}}, "step": jnp.int32(step)},
    }


@pytest.fixture
def store(tmp_path):
    with_three = Checkpoints(tmp_path, keep=2)
    for step in (2, 4, 6):
        with_three.save(step, trees(step, step), {"history": [], "seconds": 0.0}, best=2)
    with_three.wait()
    yield with_three
    with_three.close()


def restored(store):
    return store.newest(lambda step: store.restore(step, trees(0)))


def files(store, step, item):
    return sorted(
        (p for p in (store.folder / str(step) / item).rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )


def test_the_newest_and_the_best_are_kept(store):
    assert store.steps() == [6, 4, 2]
    store.save(8, trees(8), {"history": []}, best=4)
    store.wait()
    assert store.steps() == [8, 6, 4]
    assert store.newest_step() == 8


def test_what_is_restored_is_what_was_saved(store):
    found, about = restored(store)
    jax.tree.map(np.testing.assert_array_equal, found, trees(6, 6))
    assert set(about["digests"]) == {"model", "optimizer"}


def test_every_bit_of_the_arrays_counts(tmp_path):
    store, saved = Checkpoints(tmp_path, keep=9), trees(6, 6)
    (params, stats), moments = saved["model"].values(), saved["optimizer"]["optimizer"]["trunk"]
    noise, half = params["trunk"]["conv1"], params["heads"]["shirt"]
    changes = (
        (moments, "count", jnp.int32(3)),  # as it is
        (params["trunk"], "conv1", noise.at[63, 1].set(jnp.nextafter(noise[63, 1], 9.0))),
        (params["heads"], "shirt", half.at[3].set(-0.5)),
        (stats["trunk"], "mean", stats["trunk"]["mean"][::-1]),
        (moments, "count", jnp.int32(4)),
    )
    for step, (part, name, changed) in enumerate(changes):
        before = part[name]
        part[name] = changed
        store.save(step, saved, {"history": []})
        part[name] = before
    store.wait()
    assert len({tuple(store.about(step)["digests"].values()) for step in store.steps()}) == len(changes)
    store.close()


@pytest.mark.parametrize("damage", ["cut", "flipped", "about", "missing"])
def test_a_damaged_checkpoint_is_passed_over_and_put_aside(store, capsys, damage):
    largest = files(store, 6, "optimizer")[-1]
    if damage == "cut":
        largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    elif damage == "flipped":
        content = bytearray(largest.read_bytes())
        content[len(content) // 2] ^= 0x10
        largest.write_bytes(content)
    elif damage == "about":
        (store.folder / "6" / "about" / "metadata").write_text('{"history": [')
    else:
        largest.unlink()
    found, _ = restored(store)
    assert int(found["optimizer"]["step"]) == 4
    said = " ".join(capsys.readouterr().err.split())
    assert f"{store.folder / '6'}" in said and "using the previous one, of step 4" in said
    assert store.steps() == [4, 2]
    assert (store.folder / "6.damaged").is_dir()
    store.save(6, trees(6, 6), {"history": []})  # its step is free again
    store.wait()
    assert int(restored(store)[0]["optimizer"]["step"]) == 6


def test_other_numbers_in_a_readable_checkpoint_are_found(store):
    """As a disk would give them back that has swapped one file for another."""
    for path in files(store, 6, "model"):
        twin = store.folder / "4" / path.relative_to(store.folder / "6")
        if twin.exists():
            path.write_bytes(twin.read_bytes())
    with pytest.raises(DamagedError, match=r"6 is damaged: .*\(model\)|can't be restored"):
        store.restore(6, trees(0))
    about = store.about(4)
    about_item.replace(store.folder / "4", about, {**about["digests"], "optimizer": "00000000"})
    with pytest.raises(DamagedError, match=r"4 is damaged: optimizer changed"):
        store.restore(4, trees(0))


def test_a_member_that_an_earlier_version_did_not_write_is_damage(store):
    """Its description has no digest of itself: one flipped bit in `digests` would leave the arrays unchecked."""
    path = store.folder / "6" / "about" / "metadata"
    written = {name: value for name, value in json.loads(path.read_text()).items() if name not in ("format", "sha256")}
    path.write_text(json.dumps(written))
    assert store.about(6) == written and store.unchecked == {6}
    for before, after in (("digests", "digestz"), ("history", "histori"), ('"seconds": 0.0', '"seconds": true')):
        path.write_text(json.dumps(written).replace(before, after))
        with pytest.raises(DamagedError, match="description is damaged"):
            store.about(6)


def test_where_all_are_damaged_nothing_is_put_aside(store):
    for step in (2, 4, 6):
        files(store, step, "optimizer")[-1].unlink()
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read.*--overwrite"):
        restored(store)
    assert store.steps() == [6, 4, 2]


def test_a_reader_puts_nothing_aside(store, tmp_path):
    files(store, 6, "optimizer")[-1].unlink()
    reader = Checkpoints(tmp_path, read_only=True)
    assert int(restored(reader)[0]["optimizer"]["step"]) == 4
    assert reader.steps() == [6, 4, 2]
    reader.close()


def test_weights_that_are_not_finite_are_not_saved(store):
    with pytest.raises(UserError, match="not finite after step 8"):
        store.save(8, trees(8, float("nan")), {"history": []})
    assert store.steps() == [6, 4, 2]


def test_the_best_epoch_is_the_one_with_the_highest_mean_accuracy():
    def entry(epoch, task, accuracy, loss=1.0):
        return {"epoch": epoch, "step": epoch * 10 + (task == "b"), "task": task, "accuracy": accuracy, "loss": loss}

    history = [entry(1, "a", 0.5), entry(1, "b", 0.9), entry(2, "a", 0.8), entry(2, "b", 0.8)]
    assert best_step(history[:1], 2) is None
    assert best_step(history[:3], 2) == 11  # the second epoch is not complete
    assert best_step(history, 2) == 21
    assert best_step([*history, entry(3, "a", 0.8, 0.5), entry(3, "b", 0.8)], 2) == 31


_COPIES_THAT_DIFFER = """
import sys
from pathlib import Path

import jax
import numpy as np

from facefeat_jax.data.placement import Placement
from facefeat_jax.runs.checkpoints import Checkpoints

placement = Placement()

def copies(seed):
    values = np.random.RandomState(seed).standard_normal((512, 512)).astype(np.float32)
    each = [jax.device_put(values + number * np.float32(1e-6), one) for number, one in enumerate(jax.devices())]
    return jax.make_array_from_single_device_arrays(values.shape, placement.replicated, each)

step = placement.replicate(np.int32(3))
model = {"params": {"trunk": {"w": copies(0)}}, "batch_stats": {"trunk": {"mean": copies(1)}}}
trees = {"model": model, "optimizer": {"optimizer": {"trunk": {"mu": copies(2)}}, "step": step}}
store = Checkpoints(Path(sys.argv[1]))
store.save(3, trees, {"history": [], "seconds": 0.0})
store.wait()
restored, _ = store.restore(3, trees)
kept = restored["model"]["params"]["trunk"]["w"]
for one in kept.addressable_shards:
    np.testing.assert_array_equal(one.data, model["params"]["trunk"]["w"].addressable_data(0))
store.close()
"""


def test_copies_that_differ_in_their_last_bits_are_written_as_one_of_them(tmp_path):
    """Several processes add up in an order that varies; a checkpoint of theirs was taken for damaged."""
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", _COPIES_THAT_DIFFER, str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
