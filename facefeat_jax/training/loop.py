"""The training run, from config to results."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx

from facefeat_jax import run_folder
from facefeat_jax.config import TrainConfig, apply_smoke
from facefeat_jax.data import feeds
from facefeat_jax.data.dataset import default_data_dir, open_split
from facefeat_jax.data.examples import Examples, open_examples
from facefeat_jax.data.index_stream import IndexStream, Pass
from facefeat_jax.errors import Interrupted, UserError
from facefeat_jax.evaluation.curves import write_curves
from facefeat_jax.evaluation.evaluate import Evaluator
from facefeat_jax.evaluation.metrics import HeadResult
from facefeat_jax.evaluation.report import count_data, training_samples, write_report
from facefeat_jax.factory import create_model
from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.models.registry import get_architecture
from facefeat_jax.progress import Bar, say
from facefeat_jax.runtime import set_numerics
from facefeat_jax.spec import ModelSpec
from facefeat_jax.training import checkpoints, groups, steps
from facefeat_jax.training.interrupt import SignalWatch
from facefeat_jax.training.logs import Logs

# What a run that goes on may be told anew: where it lies and how it is driven. Its numbers depend on none of these.
_MAY_CHANGE = {"run", "data_dir", "resume", "overwrite", "feed_threads", "feed_prefetch"}
_MAY_CHANGE |= {"log_every", "checkpoint_every", "keep_checkpoints"}


def train(config: TrainConfig) -> dict[str, Any]:
    """Trains a model and writes the run folder.

    Args:
      config: what to do; `smoke` is applied here.

    Returns:
      What `results.json` holds: `heads` (figures of the final weights), `history` (every validation), `steps`,
      `seconds`, `data` (counts), `environment`.

    Raises:
      UserError: something in the config, the data or the weights can't be used; nothing is trained.
      Interrupted: a signal came; the run can be resumed.
    """
    config = apply_smoke(config)
    set_numerics(config.dtype, config.param_dtype, config.matmul_precision)
    # Everything that can be refused is looked at before the run folder is touched.
    _check_run_folder(config)
    data = open_data(config)
    spec = ModelSpec.following(config.trunk, data.classes, config.image_size, config.decode, str(config.weights))
    architecture = get_architecture(config.trunk)
    trained = groups.trained_modules(architecture.stages, config.trainable, architecture.last)
    model = create_model(
        config.trunk,
        tasks=spec.tasks,
        weights="random" if config.resume and _has_checkpoint(config.run) else config.weights,
        rngs=nnx.Rngs(config.seed),
        dtype=config.dtype,
        param_dtype=config.param_dtype,
    )
    if config.overwrite:
        run_folder.clear(config.run)
    run = _Run(config, spec, model, trained, data)
    try:
        return run.train()
    finally:
        run.close()


class RunData(NamedTuple):
    """What a config trains and validates on.

    Attributes:
      classes: class names of each task.
      training: the pictures to train on.
      validation: the pictures to validate on.
      stream: which training pictures each step takes.
    """

    classes: dict[str, tuple[str, ...]]
    training: Examples
    validation: Examples
    stream: IndexStream


def open_data(config: TrainConfig) -> RunData:
    """Opens the data sets of a config; whoever opens the same config gets the same batches.

    Raises:
      UserError: a source is not prepared, its classes don't fit, or no source labels some task.
    """
    data_dir = config.data_dir or default_data_dir()
    classes = _class_names(config, data_dir)
    training = open_examples(config.sources, "train", data_dir, classes, limit=config.limit)
    validation = open_examples(config.sources, "val", data_dir, classes, limit=config.limit)
    stream = IndexStream(
        training,
        tasks=config.tasks,
        schedule=config.schedule,
        batch_size=config.batch_size,
        epochs=config.epochs,
        seed=config.seed,
    )
    return RunData(classes, training, validation, stream)


def _class_names(config: TrainConfig, data_dir: Path) -> dict[str, tuple[str, ...]]:
    """Returns the class names of each task of the config, from the first of its sources that labels the task.

    Raises:
      UserError: a source is not prepared, or none labels some task.
    """
    splits = [open_split(source, "train", data_dir) for source in config.sources]
    classes = {}
    for task in config.tasks:
        named = [split.classes[task] for split in splits if task in split.classes]
        if not named:
            raise UserError(
                f"none of the sources {', '.join(config.sources)} labels {task!r}; add one that does, or drop the task"
            )
        classes[task] = named[0]
    return classes


class _Run:
    """The state of one run while it trains."""

    def __init__(
        self, config: TrainConfig, spec: ModelSpec, model: MultiTaskModel, trained: tuple[str, ...], data: RunData
    ):
        self.config = config
        self.spec = spec
        self.stream = data.stream
        self.training = data.training
        self.validation = data.validation
        freeze = config.batch_norm == "frozen"
        train_graph, eval_graph = steps.graphdefs(model, trained, freeze_batch_norm=freeze)
        self.learning_rate = groups.learning_rate_schedule(
            config.learning_rate_schedule, config.learning_rate, len(self.stream), config.warmup_steps
        )
        self.train_step = steps.make_train_step(
            train_graph, spec, trained, self.learning_rate, config.dtype, flip=config.flip, seed=config.seed
        )
        self.evaluator = Evaluator(eval_graph, spec, self.validation, config)
        self.state = steps.create_state(model, trained)
        self.history: list[dict[str, Any]] = []
        self.seconds_before = 0.0
        if not config.resume:
            # First: a folder that holds something but no config is not taken for a run.
            run_folder.write_json(config.run / run_folder.CONFIG, config.to_json())
        self.checkpoints = checkpoints.Checkpoints(config.run, keep=config.keep_checkpoints)
        self.start = self._resume() if config.resume else 0
        self.started = time.perf_counter()
        validated = any(entry["step"] == self.start for entry in self.history)
        self.logs = Logs(
            config.run / run_folder.METRICS, config.run / run_folder.TENSORBOARD, start=self.start, validated=validated
        )
        self._pending: list[tuple[int, Pass, Any]] = []

    def close(self) -> None:
        self.logs.close()
        self.checkpoints.close()

    def _resume(self) -> int:
        step = self.checkpoints.latest_step()
        if step is None:
            say(f"{self.config.run} has no checkpoint yet: starting from the beginning")
            return 0
        about = self.checkpoints.about(step)
        self.history, self.seconds_before = about["history"], about["seconds"]
        self.state = self.checkpoints.restore(step, self.state)
        say(f"going on from step {step} of {len(self.stream)}")
        return step

    def _seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.started

    def save(self) -> None:
        about = {"spec": self.spec.to_json(), "history": self.history, "seconds": self._seconds()}
        self.checkpoints.save(self.state, about)

    def train(self) -> dict[str, Any]:
        feed = feeds.stream(
            self.stream,
            self.training,
            image_size=self.config.image_size,
            decode=self.config.decode,
            start=self.start,
            threads=self.config.feed_threads,
            prefetch=self.config.feed_prefetch,
        )
        step = self.start
        validated = {entry["step"] for entry in self.history}
        with SignalWatch() as watch:
            for one in self.stream.passes:
                # A signal may have come between the last step of a pass and its validation.
                if one.end_step < step or one.end_step in validated:
                    continue
                speed = ""
                if step < one.end_step:
                    speed = f"{self._train_pass(one, step, feed, watch):.0f} images/s; "
                    step = one.end_step
                results = self._validate(one, step)
                figures = ", ".join(f"{t} {100 * r.accuracy:.1f}% (loss {r.loss:.4f})" for t, r in results.items())
                say(f"{self._title(one)}: {speed}validation: {figures}")
                if one.last_of_epoch:
                    self.save()
                self._stop_if_told(watch, step)
        return self._finish()

    def _title(self, one: Pass) -> str:
        return f"epoch {one.epoch + 1}/{self.config.epochs} {'+'.join(one.tasks)}"

    def _train_pass(self, one: Pass, step: int, feed, watch: SignalWatch) -> float:
        """Takes the steps of a pass from `step` on; returns the pictures per second."""
        done = (step - one.first_step) * self.config.batch_size
        with Bar(self._title(one), one.num_pictures, completed=done) as bar:
            while step < one.end_step:
                batch = next(feed)
                self.state, metrics = self.train_step(
                    self.state, batch.images, batch.labels, batch.mask, tasks=batch.tasks
                )
                step += 1
                bar.advance(int(batch.mask.sum()))
                self._pending.append((step, one, metrics))
                if len(self._pending) >= self.config.log_every:
                    bar.note(self._flush())
                if step < one.end_step:
                    self._stop_if_told(watch, step)
                    if step % self.config.checkpoint_every == 0:
                        self._flush()
                        self.save()
            self._flush()
            rate, seconds = bar.rate, bar.seconds
        self.logs.write("pass", step, one.epoch + 1, tasks=one.tasks, seconds=seconds, images_per_s=rate)
        self._stop_if_told(watch, step)
        return rate

    def _stop_if_told(self, watch: SignalWatch, step: int) -> None:
        """Writes a checkpoint and raises `Interrupted` where a signal has come."""
        if watch.received is None:
            return
        self._flush()
        self.save()
        self.checkpoints.wait()
        raise Interrupted(watch.received, f"stopped at step {step} of {len(self.stream)}; add --resume to go on")

    def _flush(self) -> str:
        """Writes out the steps' figures that are still on the device; returns the newest as text: loss and accuracy."""
        text = ""
        for (step, one, _), metrics in zip(
            self._pending, jax.device_get([metrics for *_, metrics in self._pending]), strict=True
        ):
            tasks = {}
            for task, metric in metrics.items():
                loss, count = float(metric["loss"]), int(metric["count"])
                if not math.isfinite(loss):
                    raise UserError(
                        f"the loss of {task} is {loss} at step {step} of {len(self.stream)}; the newest checkpoint in "
                        f"{self.checkpoints.folder} is from before. Try a lower --learning-rate or look at the data"
                    )
                if count:
                    tasks[task] = {"loss": loss, "accuracy": int(metric["correct"]) / count}
            rate = float(self.learning_rate(step - 1))
            self.logs.write("train", step, one.epoch + 1, learning_rate=rate, tasks=tasks)
            text = "  ".join(
                f"{task} {figures['loss']:.3f} {figures['accuracy']:.0%}" for task, figures in tasks.items()
            )
        self._pending.clear()
        return text

    def _validate(self, one: Pass, step: int) -> dict[str, HeadResult]:
        results = self._evaluate(one.tasks, "validation")
        figures = {task: result.to_json() for task, result in results.items()}
        self.history += [{"step": step, "epoch": one.epoch + 1, "task": task, **figures[task]} for task in figures]
        self.logs.write("validation", step, one.epoch + 1, tasks=figures)
        return results

    def _evaluate(self, tasks: tuple[str, ...], title: str) -> dict[str, HeadResult]:
        return self.evaluator.results(
            self.state.params, self.state.batch_stats, tasks, title=f"{title} {'+'.join(tasks)}"
        )

    def _finish(self) -> dict[str, Any]:
        # From here on a signal ends the process; what was trained is on disk by then.
        self.checkpoints.wait()
        last = {entry["task"]: entry for entry in self.history}
        if all(entry["step"] == len(self.stream) for entry in last.values()):
            # The last validation already saw the final weights.
            names = HeadResult.__dataclass_fields__
            heads = {task: {name: entry[name] for name in names} for task, entry in last.items()}
        else:
            # One task after the other: all heads but the last were validated before the trunk moved on.
            heads = {t: r.to_json() for t, r in self._evaluate(self.config.tasks, "final weights:").items()}
        results = {
            "heads": {task: heads[task] for task in self.config.tasks},
            "history": self.history,
            "steps": len(self.stream),
            "seconds": self._seconds(),
            "data": count_data({"train": self.training, "val": self.validation}, self.spec.classes),
            "environment": run_folder.environment(),
        }
        run_folder.write_json(self.config.run / run_folder.RESULTS, results)
        samples = training_samples(
            self.training, self.spec.classes, decode=self.config.decode, image_size=self.config.image_size
        )
        write_report(self.config.run, samples=samples)
        write_curves(self.config.run)
        return results


def _has_checkpoint(run: Path) -> bool:
    """Returns whether there is one to go on from; the weights that the run began with are not needed then."""
    if not (run / checkpoints.FOLDER).is_dir():
        return False
    store = checkpoints.Checkpoints(run, read_only=True)
    try:
        return store.latest_step() is not None
    finally:
        store.close()


def _check_run_folder(config: TrainConfig) -> None:
    """Refuses a folder that holds something else, or an earlier run unless told what to do with it."""
    folder = config.run
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give --run a folder")
    has_run = (folder / run_folder.CONFIG).exists()
    if has_run and config.overwrite and not run_folder.is_run(folder):
        # Other programs call their files config.json too.
        raise UserError(f"{folder / run_folder.CONFIG} is not the config of a run; give --run another folder")
    if config.resume:
        earlier = run_folder.read_config(folder)
        changed = [
            name
            for name, value in earlier.to_json().items()
            if value != config.to_json()[name] and name not in _MAY_CHANGE
        ]
        if changed:
            raise UserError(
                f"--resume goes on with what {folder} was started with, but these differ: {', '.join(changed)}"
            )
    elif has_run and not config.overwrite:
        raise UserError(
            f"{folder} already holds a run; --resume goes on with it, --overwrite deletes it, --run takes another"
        )
    elif not has_run and folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} holds something that is not a run; give --run another folder")
