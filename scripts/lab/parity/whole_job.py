"""The whole job on prepared data sets, in JAX and in PyTorch, from the same weights on the same batches.

The JAX side is the project's own `train`. The PyTorch side is the notebook's program, but for two things: the order of
the pictures comes from the same index stream, and at the end every head is validated again on the final weights.
"""

from __future__ import annotations

import datetime
import json
import multiprocessing
import platform
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import numpy as np

from facefeat_jax.config import TrainConfig, load_recipe
from facefeat_jax.data.dataset import default_data_dir
from facefeat_jax.data.examples import Examples
from facefeat_jax.data.index_stream import IndexBatch, in_order
from facefeat_jax.runs.run_folder import CONFIG, METRICS, write_json
from facefeat_jax.system import environment
from facefeat_jax.system.errors import Interrupted, UserError
from facefeat_jax.system.markdown import row
from facefeat_jax.system.progress import Bar, say
from facefeat_jax.system.runtime import cores
from weights_conversion._with_torch import require_torch

Side = Literal["jax", "torch"]
SIDES: tuple[Side, ...] = ("jax", "torch")
START, JOB = "start.safetensors", "job.json"
# What says where a run lies and how it is driven, but does not change its numbers.
_NOT_COMPARED = ("run", "data_dir", "resume", "overwrite", "feed_threads", "feed_prefetch", "log_every", "weights")


@dataclass(frozen=True)
class Job:
    """The baseline's rules on prepared data sets.

    Attributes:
      out: folder for both sides.
      data_dir: of the prepared data sets.
      sources: their names.
      weights: `random`, `imagenet` or a file. With random weights nothing is frozen.
      image_size: side of the pictures in pixels.
      epochs: passes over each task's pictures.
      batch_size: pictures per step.
      seed: of random weights and of the order.
      limit: use only this many pictures of each split.
    """

    out: Path
    data_dir: Path | None
    sources: tuple[str, ...]
    weights: str
    image_size: int
    epochs: int
    batch_size: int
    seed: int
    limit: int | None

    def config(self) -> TrainConfig:
        """Returns the config of the JAX side: the baseline recipe with this job's sizes."""
        recipe = load_recipe("baseline")
        return recipe.replace(
            run=self.out / "jax",
            data_dir=self.data_dir or default_data_dir(),
            sources=self.sources,
            weights=str(self.out / START),
            trainable=("all",) if self.weights == "random" else recipe.model.trainable,
            image_size=self.image_size,
            epochs=self.epochs,
            batch_size=self.batch_size,
            seed=self.seed,
            limit=self.limit,
            # PyTorch's side computes in float32 too; JAX would take TF32 on a GPU.
            matmul_precision="highest",
        )

    def settings(self) -> dict[str, Any]:
        """Returns what the figures depend on; a folder holds one job only."""
        values = {name: value for name, value in self.config().to_json().items() if name not in _NOT_COMPARED}
        return {**values, "weights": self.weights}


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
    return _result(job, "jax", passes, results["heads"], results["seconds"])


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
    model = baseline_model.MultiTaskNet()
    start = weights_conversion.read(job.out / START)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in start.items()}, strict=True)
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
    weights_conversion.write(job.out / "torch.pth", {n: t.cpu().numpy() for n, t in model.state_dict().items()})
    return _result(job, "torch", passes, final, seconds)


def _figures(result: Any) -> dict[str, Any]:
    return {name: getattr(result, name) for name in ("accuracy", "loss", "loss_of_batches", "n")}


def _result(job: Job, side: Side, passes: list[dict], final: dict[str, Any], seconds: float) -> dict[str, Any]:
    return {
        "side": side,
        "settings": {**job.settings(), "weights": Path(job.weights).name},
        "environment": _environment(side),
        "date": datetime.date.today().isoformat(),
        "seconds": seconds,
        "passes": passes,
        "final": final,
    }


def _environment(side: Side) -> dict[str, str]:
    names = {"jax": ("jax", "jaxlib", "flax", "optax"), "torch": ("torch", "torchvision")}[side]
    if side == "jax":
        import jax

        devices = sorted({device.device_kind for device in jax.devices()})
    else:
        import torch

        devices = [torch.cuda.get_device_name()] if torch.cuda.is_available() else ["cpu"]
    return {
        "processor": environment.processor(),
        "cores": str(cores()),
        "devices": ", ".join(devices),
        "python": platform.python_version(),
        **environment.versions((*names, "numpy", "pillow")),
    }


def _path(job: Job, side: Side) -> Path:
    return job.out / f"{side}.json"


def _read(job: Job, side: Side) -> dict[str, Any] | None:
    path = _path(job, side)
    return _json(path) if path.exists() else None


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}); delete its folder and start anew") from error


def _claim(job: Job) -> None:
    """Makes the folder this job's, with the weights to start from; refuses one that holds another job."""
    path, settings = job.out / JOB, job.settings()
    if path.exists():
        earlier = _json(path)
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

    def pass_on(number: int, frame: FrameType | None) -> None:
        process.terminate()
        process.join()
        raise Interrupted(number, "stopped; the same command goes on")

    previous = signal.signal(signal.SIGTERM, pass_on)
    try:
        process.start()
        sender.close()
        error, result = receiver.recv()
    except KeyboardInterrupt:
        process.join()  # Ctrl-C reached it too; it may be writing a checkpoint
        raise
    except EOFError:
        process.join()
        raise RuntimeError(f"the process of {function.__name__} ended with exit code {process.exitcode}") from None
    finally:
        signal.signal(signal.SIGTERM, previous)
    process.join()
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


def report(results: dict[Side, dict[str, Any]]) -> str:
    """Returns the figures of the sides beside each other, as Markdown."""
    sides = [side for side in SIDES if side in results]
    title = {"jax": "JAX", "torch": "PyTorch"}
    some = results[sides[0]]
    tasks = list(some["final"])
    settings = some["settings"]
    frozen = "nothing frozen" if settings["trainable"] == ["all"] else "layer4 and the heads trained"
    lines = [
        f"Baseline's rules, {settings['weights']} weights (the same on both sides), {frozen}, "
        f"{settings['image_size']} px, batch {settings['batch_size']}, {settings['epochs']} epochs, "
        f"seed {settings['seed']}, sources {', '.join(settings['sources'])}"
        + (f", at most {settings['limit']} pictures of each split." if settings["limit"] else "."),
        "",
        "| side | date | device | versions | training and validation |",
        "| --- | --- | --- | --- | --- |",
    ]
    for side in sides:
        env = dict(results[side]["environment"])
        where = f"{env.pop('devices')} ({env.pop('cores')} cores of {env.pop('processor')})"
        versions = ", ".join(f"{name} {version}" for name, version in env.items())
        lines.append(
            f"| {title[side]} | {results[side]['date']} | {where} | {versions} | {results[side]['seconds']:.0f} s |"
        )

    def header(*first: str, figures: tuple[str, ...]) -> list[str]:
        names = [*first, *(f"{title[side]}: {figure}" for figure in figures for side in sides)]
        return [row(*names), row(*["---"] * len(names))]

    lines += ["", "Right after its own last pass, and of the final weights (validation):", ""]
    lines += header(
        "head", "pictures", figures=("accuracy, own pass", "loss, own pass", "accuracy, final", "loss, final")
    )
    for task in tasks:
        own = {side: [p for p in results[side]["passes"] if p["task"] == task][-1]["val"] for side in sides}
        final = {side: results[side]["final"][task] for side in sides}
        lines.append(
            row(
                task,
                some["final"][task]["n"],
                *(f"{own[side]['accuracy']:.3f}" for side in sides),
                *(f"{own[side]['loss_of_batches']:.4f}" for side in sides),
                *(f"{final[side]['accuracy']:.3f}" for side in sides),
                *(f"{final[side]['loss_of_batches']:.4f}" for side in sides),
            )
        )
    lines += ["", "Pass by pass:", ""]
    lines += header("epoch", "head", figures=("training loss", "accuracy", "loss", "images/s"))
    for number, one in enumerate(some["passes"]):
        both = [results[side]["passes"][number] for side in sides]
        lines.append(
            row(
                one["epoch"],
                one["task"],
                *(f"{p['train_loss']:.4f}" for p in both),
                *(f"{p['val']['accuracy']:.3f}" for p in both),
                *(f"{p['val']['loss_of_batches']:.4f}" for p in both),
                *(f"{p['images_per_s']:.0f}" for p in both),
            )
        )
    lines += [
        "",
        "Losses are means of batch means, as the notebook reports them. Images/s are those of training, waiting for "
        "pictures included; the first pass of each head in JAX also compiles.",
    ]
    return "\n".join(lines) + "\n"


def command(job: Job) -> str:
    """Returns the command that does the job, without anything of the machine that it ran on."""
    values = {
        "data-dir": "DIR",
        "sources": " ".join(job.sources),
        "weights": Path(job.weights).name,
        "image-size": job.image_size,
        "epochs": job.epochs,
        "batch-size": job.batch_size,
        "seed": job.seed,
        **({} if job.limit is None else {"limit": job.limit}),
    }
    return "python scripts/compare_with_pytorch.py train " + " ".join(f"--{k} {v}" for k, v in values.items())
