"""The whole job on prepared data sets, in JAX and in PyTorch, from the same weights on the same batches.

The JAX side is the project's own `train`. The PyTorch side is the notebook's program, but for two things: the order of
the pictures comes from the same index stream, and at the end every head is validated again on the final weights.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from common import read_results
from facefeat_jax.data.examples import Examples
from facefeat_jax.data.index_stream import IndexBatch, in_order
from facefeat_jax.runs.run_folder import CONFIG, METRICS, write_json
from facefeat_jax.system import environment, signals
from facefeat_jax.system.errors import Interrupted, UserError
from facefeat_jax.system.progress import Bar, say
from parity.job import SIDES, START, Job, Side
from weights_conversion._records import load_torch, torch_state
from weights_conversion._with_torch import require_torch

JOB = "job.json"


def run(job: Job, sides: tuple[Side, ...]) -> dict[Side, dict[str, Any]]:
    """Trains the sides that are not done yet, one after the other, and returns those that are done.

    Each runs in a process of its own: they share neither memory nor a GPU.

    Raises:
      UserError: the folder holds another job, the data is not prepared, or the weights don't fit.
    """
    if "torch" in sides:
        require_torch()
    _claim(job)
    done = {side: _read(job, side) for side in SIDES}
    trainers: dict[Side, Callable[[Job], dict[str, Any]]] = {"jax": train_jax, "torch": train_torch}
    for side in sides:
        if done[side] is not None:
            say(f"{side}: already done, taken from {_path(job, side)}")
            continue
        done[side] = _in_process(trainers[side], job)
        write_json(_path(job, side), done[side])
    return {side: result for side, result in done.items() if result is not None}


def write_start(job: Job) -> None:
    """Writes the weights that both sides start from, the heads included, under torch's names."""
    from flax import nnx

    import weights_conversion
    from facefeat_jax.factory import create_model
    from facefeat_jax.runs.spec import ModelSpec
    from facefeat_jax.training.data import open_data

    config = job.config()
    classes = open_data(config.data, config.batches, seed=config.seed).classes
    spec = ModelSpec(config.model.trunk, classes, config.data.image_size, config.data.decode, job.weights)
    model = create_model(config.model.trunk, tasks=spec.tasks, weights=job.weights, rngs=nnx.Rngs(config.seed))
    job.out.mkdir(parents=True, exist_ok=True)
    weights_conversion.write(job.out / START, weights_conversion.to_torch(model))


def train_jax(job: Job) -> dict[str, Any]:
    """Trains the JAX side by the project's own loop, going on where an earlier attempt was interrupted."""
    from facefeat_jax.commands import train
    from facefeat_jax.runs.logs import read_metrics

    config = job.config()
    results = train(config.replace(resume=(config.run / CONFIG).exists()))
    lines = read_metrics(config.run / METRICS)
    passes = []
    for entry in results["history"]:
        own = [line for line in lines if (line.get("epoch"), line.get("task")) == (entry["epoch"], entry["task"])]
        (timed,) = (line for line in own if line["event"] == "pass")
        passes.append(
            {
                "epoch": entry["epoch"],
                "task": entry["task"],
                "train_loss": float(np.mean([line["loss"] for line in own if line["event"] == "train"])),
                "seconds": timed["seconds"],
                "images_per_s": timed["images_per_s"],
                "val": {name: entry[name] for name in ("accuracy", "loss", "loss_of_batches", "n")},
            }
        )
    return _result(job, "jax", passes, results["heads"], results["seconds"], None)


def train_torch(job: Job) -> dict[str, Any]:
    """Trains the notebook's program on the same batches."""
    import torch

    import weights_conversion
    from facefeat_jax.training.data import open_data
    from pytorch_baseline import model as baseline_model
    from pytorch_baseline import pictures, training

    config = job.config()
    _, train_examples, val_examples, stream = open_data(config.data, config.batches, seed=config.seed)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    model = load_torch(baseline_model.MultiTaskNet(), weights_conversion.read(job.out / START), "float32")
    if config.model.trainable in (("last",), ("layer4",)):
        baseline_model.freeze_early_layers(model)
    model.to(device)
    optimizer = training.make_optimizer(model)

    def batches(examples: Examples, task: str, wanted: list[IndexBatch]):
        dataset = pictures.PictureDataset(examples.read, examples.labels[task], config.data.image_size)
        return pictures.loader(dataset, [batch.indices[batch.mask].tolist() for batch in wanted], device)

    def validated(task: str, title: str) -> training.PassResult:
        rows = in_order(val_examples.labelled(task), (task,), config.batches.batch_size)
        with Bar(f"{title} {task}", len(val_examples.labelled(task))) as bar:
            return training.validate(model, task, batches(val_examples, task, rows), bar.advance)

    started = time.perf_counter()
    passes = []
    for one in stream.passes:
        (task,) = one.tasks
        wanted = [stream[step] for step in range(one.first_step, one.end_step)]
        title = f"epoch {one.epoch + 1}/{config.batches.epochs} {task}"
        with Bar(f"PyTorch {title}", one.num_pictures) as bar:
            train = training.train_pass(model, optimizer, task, batches(train_examples, task, wanted), bar.advance)
        val = validated(task, "validation")
        say(f"PyTorch {title}: {train.n / train.seconds:.0f} images/s; validation {100 * val.accuracy:.1f}%")
        passes.append(
            {
                "epoch": one.epoch + 1,
                "task": task,
                "train_loss": train.loss_of_batches,
                "seconds": train.seconds,
                "images_per_s": train.n / train.seconds,
                "val": _figures(val),
            }
        )
    final = {task: _figures(validated(task, "final weights:")) for task in config.data.tasks}
    seconds = time.perf_counter() - started
    weights_conversion.write(job.out / "torch.pth", torch_state(model))
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    return _result(job, "torch", passes, final, seconds, name)


def _figures(result: Any) -> dict[str, Any]:
    return {name: getattr(result, name) for name in ("accuracy", "loss", "loss_of_batches", "n")}


def _result(
    job: Job, side: Side, passes: list[dict], final: dict[str, Any], seconds: float, devices: str | None
) -> dict[str, Any]:
    packages = {"jax": ("jax", "jaxlib", "flax", "optax"), "torch": ("torch", "torchvision")}[side]
    return {
        "side": side,
        "settings": {**job.settings(), "weights": Path(job.weights).name},
        **environment.record(job.command(), (*packages, "numpy", "pillow"), devices),
        "seconds": seconds,
        "passes": passes,
        "final": final,
    }


def _path(job: Job, side: Side) -> Path:
    return job.out / f"{side}.json"


def _read(job: Job, side: Side) -> dict[str, Any] | None:
    path = _path(job, side)
    return (
        read_results(path, "this comparison", ("settings", "environment", "final", "command"))
        if path.exists()
        else None
    )


def _claim(job: Job) -> None:
    """Makes the folder this job's, with the weights to start from; refuses one that holds another job."""
    path, settings = job.out / JOB, job.settings()
    if path.exists():
        earlier = read_results(path, "this comparison", ())
        if changed := [name for name in settings if earlier.get(name) != settings[name]]:
            raise UserError(
                f"{job.out} holds a job with other settings ({', '.join(changed)}); give --out a new folder"
            )
        return
    if job.out.is_dir() and any(found.name != START for found in job.out.iterdir()):
        raise UserError(f"{job.out} holds something else; give --out a new folder")
    _in_process(write_start, job)
    write_json(path, settings)


def _in_process(function: Callable[[Job], Any], job: Job) -> Any:
    """Runs a function in a new process, which gets the signals that come here, and returns its result."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(function, job, sender))

    process.start()
    sender.close()
    try:
        error, result = receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"the process of {function.__name__} ended with exit code {process.exitcode}") from None
    except signals.Terminated:
        process.terminate()  # Ctrl-C reaches it by itself
        raise Interrupted(signal.SIGTERM, "stopped; the same command resumes") from None
    finally:
        process.join()  # it may be writing a checkpoint
    if error is not None:
        raise error
    return result


def _answer(function: Callable[[Job], Any], job: Job, sender: Connection) -> None:
    try:
        sender.send((None, function(job)))
    except UserError as error:
        sender.send((UserError(str(error)), None))
    except Interrupted as stopped:
        sys.exit(stopped.exit_code)  # a signal that the parent has too, and answers
