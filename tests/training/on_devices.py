"""Trains a small model on some devices, or as one of several processes, and writes down what came out.

Run by test_devices.py: python on_devices.py DATA OUT SCHEDULE FEED DEVICES [--resume] [--kill-at STEP]
[--terminate-at STEP]

`DEVICES` is how many of the forced devices are used; with JAX_NUM_PROCESSES set, all of all processes are. Writes
OUT.npz: parameters, statistics and optimizer states by name, the losses of each step, and which pictures were read.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np


def main() -> None:
    data, out, schedule, feed, devices = sys.argv[1:6]
    from facefeat_jax.config import TrainConfig
    from facefeat_jax.system import distributed

    jax.config.update("jax_enable_x64", True)
    config = TrainConfig().replace(
        run=Path(out),
        data_dir=Path(data),
        sources=("avatars",),
        trunk="small",
        tasks=("glasses", "shirt"),
        schedule=schedule,
        feed=feed,
        packed="off",
        image_size=32,
        batch_size=28,  # 43 pictures: batches of 28 and 15, of which 8 devices have 4 and 2, and the last one none
        limit=43,
        epochs=2,
        learning_rate=1e-3,
        weights="random",
        dtype="float64",
        param_dtype="float64",
        flip=True,
        rand_augment=9,
        mixup=0.4,
        cutmix=1.0,
        layer_decay=0.7,
        unfreeze_every=1,
        resume="--resume" in sys.argv,
        distributed=distributed.NUM_PROCESSES in os.environ,
        checkpoint_every=1,
    )
    if config.processes.distributed:
        with distributed.member(20):
            run(config, None)
    else:
        run(config, int(devices))


def run(config, devices: int | None) -> None:

    from facefeat_jax.data.examples import Examples
    from facefeat_jax.models import ResNet, registry
    from facefeat_jax.runs import checkpoints
    from facefeat_jax.training import _setup as setup
    from facefeat_jax.training import loop

    if devices is not None:
        some = jax.devices()[:devices]
        placement = setup.Placement
        setup.Placement = lambda: placement(some)

    registry.ARCHITECTURES["small"] = dataclasses.replace(
        registry.ARCHITECTURES["resnet18"], name="small", build=lambda **options: ResNet((1, 1, 1, 1), **options)
    )
    read: set[str] = set()
    original = Examples.read

    def noted(self, index):
        read.add(self.name(index))
        return original(self, index)

    Examples.read = noted
    last = {}
    save = checkpoints.Checkpoints.save

    def kept(self, step, trees, about, **options):
        last["state"] = jax.tree.map(np.asarray, trees)
        save(self, step, trees, about, **options)
        for option, number in (("--kill-at", signal.SIGKILL), ("--terminate-at", signal.SIGTERM)):
            if option not in sys.argv or jax.process_index() != jax.process_count() - 1:
                continue  # to the last process alone
            if step == int(sys.argv[sys.argv.index(option) + 1]):
                self.wait()
                os.kill(os.getpid(), number)

    checkpoints.Checkpoints.save = kept
    results = loop.train(config).results
    values = {jax.tree_util.keystr(path): value for path, value in jax.tree_util.tree_leaves_with_path(last["state"])}
    losses = [entry["loss"] for entry in results["history"]]
    name = f"{config.run}.{jax.process_index()}.npz"
    np.savez(name, losses=np.array(losses), read=np.array(sorted(read)), **values)


if __name__ == "__main__":
    from facefeat_jax.system.main import run_main

    sys.exit(run_main(main))
