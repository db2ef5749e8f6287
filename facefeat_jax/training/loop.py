"""The training run, from config to results."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import psutil
from flax import nnx

from facefeat_jax.config import TrainConfig, apply_smoke
from facefeat_jax.data.dataset import default_data_dir, open_split
from facefeat_jax.data.examples import Examples, count_data, open_halves
from facefeat_jax.data.feeds import Batches, Feed
from facefeat_jax.data.index_stream import Call, IndexStream, Pass
from facefeat_jax.data.pixels import PixelFormat
from facefeat_jax.data.placement import Placement
from facefeat_jax.evaluation.evaluate import Evaluator
from facefeat_jax.evaluation.explain import Frozen
from facefeat_jax.evaluation.metrics import HeadResult
from facefeat_jax.factory import create_model
from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.models.promotion import set_up
from facefeat_jax.models.registry import get_architecture
from facefeat_jax.models.trunk import POOLED
from facefeat_jax.runs import checkpoints, run_config, run_folder
from facefeat_jax.runs.data_record import DataRecord, require_same
from facefeat_jax.runs.logs import Logs, NoLogs
from facefeat_jax.runs.spec import NUMERICS, ModelSpec
from facefeat_jax.system import checked_json, environment
from facefeat_jax.system.distributed import is_first
from facefeat_jax.system.errors import Interrupted, UserError
from facefeat_jax.system.figures import format_accuracy, format_loss
from facefeat_jax.system.programs import Programs
from facefeat_jax.system.progress import Bar, say
from facefeat_jax.system.runtime import set_numerics
from facefeat_jax.tasks import get_task
from facefeat_jax.training import automatic, groups, out_of_memory, saved_state, steps
from facefeat_jax.training.augment import Augmentation
from facefeat_jax.training.inputs import Inputs
from facefeat_jax.training.interrupt import SignalWatch, StopRequest
from facefeat_jax.training.prefix import Prefix, last_frozen

# How many calls may be under way before the figures of the first are waited for.
_CALLS_AHEAD = 2
# With `--on-nonfinite skip`: after so many skipped steps in a row there is nothing to hope for.
_MOST_SKIPPED = 20
# How many pictures of a batch a message names; the log has all of them.
_NAMED = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A finished training.

    Attributes:
      results: what `results.json` holds: `heads` (figures of the final weights), `history` (every validation), `steps`,
        `seconds`, `timings` (where they went, `Timings`), `data` (counts), `environment`.
      logits: of the final weights, of every head on every validation picture, `{task: [n, outputs]}`.
      config: what was done.
      spec: what the model is.
      model: the model with the final weights, in evaluation mode.
      frozen: the compiled program of the stages that were computed once; None without any.
      training: the pictures that were trained on.
      validation: those of the logits.
    """

    results: dict[str, Any]
    logits: dict[str, np.ndarray]
    config: TrainConfig
    spec: ModelSpec
    model: MultiTaskModel
    frozen: Frozen | None
    training: Examples
    validation: Examples


def train(config: TrainConfig) -> Trained:
    """Trains a model and writes the run folder but for its pages, which `facefeat_jax.commands.train` adds.

    Args:
      config: what to do; `smoke` is applied here.

    Raises:
      UserError: something in the config, the data or the weights can't be used; nothing is trained.
      Interrupted: a signal came; the run can be resumed.
    """
    began = time.perf_counter()
    config = apply_smoke(config)
    for task in config.tasks:
        get_task(task)  # a run that was trained elsewhere may have tasks that are not in this table; a new one may not
    if config.resume:
        config = automatic.with_earlier_choices(config, run_folder.read_config(config.run))
    config = automatic.choose_dtype(config)
    if not config.resume:
        config.require_effect()
    set_numerics(config.dtype, config.param_dtype, config.matmul_precision)
    # Everything that can be refused is looked at before the run folder is touched.
    if is_first():
        run_config.check_folder(config)
    placement = Placement()
    data = open_data(config, padded_size=placement.round_up(config.batch_size))
    if not config.resume:
        config.require_effect(len(data.stream))
        if len(data.stream) // 2 < config.warmup_steps:
            say(f"warm-up: {len(data.stream) // 2} steps instead of {config.warmup_steps}, half of the run's")
    # A resumed run keeps its own spec, even if the tables have changed.
    spec = (_earlier_spec(config) if config.resume else None) or ModelSpec.following(
        config.trunk,
        data.classes,
        config.image_size,
        config.decode,
        str(config.weights),
        **{name: getattr(config, name) for name in NUMERICS},
    )
    architecture = get_architecture(config.trunk)
    trained = groups.trained_modules(architecture.stages, config.trainable, architecture.last)
    until = last_frozen(architecture.stages, trained) if config.cache_prefix else None
    if config.batch_norm == "frozen" and {*chain.from_iterable(architecture.stages.values())} <= {*trained}:
        say("--batch-norm frozen: without effect, since all stages of the trunk are trained")
    config = automatic.choose_steps_per_call(config, heads_alone=until == POOLED)
    is_restored = config.resume and _has_checkpoint(config.run)
    with set_up():
        model = create_model(
            config.trunk,
            tasks=spec.tasks,
            weights="random" if is_restored else config.weights,
            weights_key=None if is_restored else config.weights_key,
            rngs=nnx.Rngs(config.seed),
            dtype=config.dtype,
            param_dtype=config.param_dtype,
            **spec.trunk_options,
        )
    record = _recorded(config, data, placement)
    with contextlib.ExitStack() as held:
        run = _Run(config, spec, model, trained, until, data, record, placement, began, held)
        try:
            return run.train()
        except UserError:
            raise  # a disk that is full is called RESOURCE_EXHAUSTED too
        except Exception as error:
            if not out_of_memory.is_out_of_memory(error):
                raise
            raise run.out_of_memory() from error


class RunData(NamedTuple):
    """The data that a config trains and validates on.

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


def open_data(config: TrainConfig, *, padded_size: int | None = None) -> RunData:
    """Opens the data sets of a config. The same config gives the same batches.

    Args:
      config: the config of the run.
      padded_size: what batches are padded to; the default is the config's batch size.

    Raises:
      UserError: a source is not prepared, its classes don't fit, or no source labels some task.
    """
    data_dir = config.data_dir or default_data_dir()
    classes = _class_names(config, data_dir)
    training, validation = open_halves(config.sources, data_dir, classes, limit=config.limit, disjoint=config.disjoint)
    stream = IndexStream(
        training,
        tasks=config.tasks,
        schedule=config.schedule,
        batch_size=config.batch_size,
        epochs=config.epochs,
        seed=config.seed,
        balance=config.balance,
        padded_size=padded_size,
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


class Timings(NamedTuple):
    """The time that a process spent, in seconds; work that ran beside other work does not count.

    Attributes:
      start: until the first picture was read: opening data, making the model.
      read: reading, decoding and resizing, the outputs of frozen stages, the way to the device.
      compile_wait: waiting for programs.
      train: in steps, including waiting for pictures.
      validate: validation.
      compile: tracing and compiling, mostly beside the above.
    """

    start: float
    read: float
    compile_wait: float
    train: float
    validate: float
    compile: float


class _Run:
    """The state of one run while it trains."""

    def __init__(
        self,
        config: TrainConfig,
        spec: ModelSpec,
        model: MultiTaskModel,
        trained: tuple[str, ...],
        until: str | None,
        data: RunData,
        record: DataRecord,
        placement: Placement,
        began: float,
        held: contextlib.ExitStack,
    ):
        self.spec = spec
        self.stream = data.stream
        self.training = data.training
        self.validation = data.validation
        self.placement = placement
        self.programs = Programs(deterministic=config.deterministic)
        held.callback(self.programs.close)
        train_graph, eval_graph = steps.graphdefs(model, trained, freeze_batch_norm=config.batch_norm == "frozen")
        self.eval_graph = eval_graph
        learning_rate = groups.learning_rate_schedule(
            config.learning_rate_schedule, config.learning_rate, len(self.stream), config.warmup_steps
        )
        # For the logs, all at once: asked for step by step, each would be a computation and a wait of its own.
        with set_up():
            self.learning_rates = jax.device_get(jax.vmap(learning_rate)(jax.numpy.arange(len(self.stream))))
        optimizer = groups.adam(config.weight_decay)
        self.state = placement.replicate(
            steps.create_state(model, trained, optimizer=optimizer, averaged=config.ema > 0)
        )
        step = steps.make_step(
            train_graph,
            spec,
            trained,
            learning_rate,
            config.dtype,
            augmentation=Augmentation(config.flip, config.crop, config.colour_jitter, config.erase),
            optimizer=optimizer,
            label_smoothing=config.label_smoothing,
            ema=config.ema,
            seed=config.seed,
            after=until,
            skip_nonfinite=config.on_nonfinite == "skip",
        )
        self.train_call = steps.make_train_call(step, placement)
        self.evaluator = Evaluator(
            eval_graph,
            spec,
            self.validation,
            placement,
            batch_size=config.batch_size,
            dtype=config.dtype,
            after=until,
        )
        self.prefix = None
        if until is not None:
            # With copies of its own: the state's buffers are given away at the first step.
            params, batch_stats = self._own_copies()
            self.prefix = Prefix(eval_graph, params, batch_stats, spec, config.dtype, until, placement.local)
        pixels = PixelFormat(spec.image_size, spec.decode, spec.interpolation)
        self.inputs = Inputs(config, pixels, self.training, self.validation, self.prefix, placement)
        self.config = config = dataclasses.replace(config, feed=self.inputs.feed)
        self.writes = is_first()  # of several processes, the one that writes what is written once
        if self.writes:
            held.enter_context(run_folder.owned(config.run))
            run_config.check_folder(config)  # again: another process may have held it since
            if config.overwrite:
                run_folder.clear(config.run)
        self.history: list[dict[str, Any]] = []
        self.seconds_before = 0.0
        if self.writes and not config.resume:
            # First: a folder that holds something but no config is not taken for a run.
            run_folder.write_config(config.run, config)
        self.checkpoints = checkpoints.Checkpoints(config.run, keep=config.keep_checkpoints)
        held.callback(self.checkpoints.close)
        self.start = self._resume() if config.resume else 0
        if self.writes and not self.start:
            record.write(config.run)
        self.began = began
        validated = any(entry["step"] == self.start for entry in self.history)
        if self.writes:
            self.logs: Logs | NoLogs = Logs(
                config.run / run_folder.METRICS,
                config.run / run_folder.TENSORBOARD,
                start=self.start,
                validated=validated,
            )
        else:
            self.logs = NoLogs()
        held.callback(self.logs.close)
        self._pending: deque[tuple[Call, Pass, Any]] = deque()
        self._skipped = 0  # steps in a row
        self._all_logits: dict[str, np.ndarray] | None = None  # of the newest weights, on all validation pictures
        self.read_seconds = self.train_seconds = self.validate_seconds = 0.0
        self.start_seconds = time.perf_counter() - began

    def _resume(self) -> int:
        like = saved_state.trees_like(self.state)
        restored = self.checkpoints.newest(lambda step: self.checkpoints.restore(step, like))
        if restored is None:
            say(f"{self.config.run} has no checkpoint yet: starting from the beginning")
            return 0
        trees, about = restored
        self.state = saved_state.from_trees(trees)
        step = int(jax.device_get(self.state.step))
        if step in self.checkpoints.unchecked:
            run_folder.warn_unchecked(self.config.run)
        self.history, self.seconds_before = about["history"], about["seconds"]
        if self.prefix is not None:
            # The model was made with random weights; those of the frozen stages are in the checkpoint.
            self.prefix.use(*self._own_copies())
        say(f"resuming from step {step} of {len(self.stream)}")
        before, now = about.get("devices"), environment.device_names()
        if before not in (None, now):
            say(f"the run was trained on {before} until now, and continues on {now}: its last digits may differ")
        return step

    def _own_copies(self) -> tuple[Any, Any]:
        return self.placement.own_copies(steps.copied((self.state.params, self.state.batch_stats)))

    def _seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.began

    def save(self) -> None:
        """Starts to write a checkpoint; all figures up to it have been flushed."""
        about = {
            "spec": self.spec.to_json(),
            "history": self.history,
            "seconds": self._seconds(),
            "devices": environment.device_names(),
        }
        best = checkpoints.best_step(self.history, len(self.config.tasks)) if self.config.keep_best else None
        self.logs.sync()  # first: a run that resumes from the checkpoint has no other source of these lines
        self.checkpoints.save(int(jax.device_get(self.state.step)), saved_state.to_trees(self.state), about, best=best)

    def _calls(self, one: Pass) -> list[Call]:
        """Returns the calls of a pass that are still to be made."""
        return [call for call in one.calls(self.config.steps_per_call) if call.first_step >= self.start]

    def _compile_ahead(self) -> None:
        """Begins to compile all programs of the run, those that are needed first in front."""
        if self.prefix is not None:
            self.programs.add("prefix", self.prefix.lower)
        state, layout = self._abstract_state(), self.inputs.layouts.validation
        for one in self.stream.passes:
            # A pass has thousands of calls of one kind, and may end with one of another.
            for kind, call in {(call.tasks, call.num_steps): call for call in self._calls(one)}.items():
                self.programs.add(kind, partial(self._lower, state, call, self.config.batch_size))
            self.programs.add("predict", partial(self.evaluator.lower, state.params, state.batch_stats, layout))

    def _abstract_state(self) -> steps.TrainState:
        """Returns shapes in place of the state's arrays, which the first step gives away."""
        return jax.tree.map(
            lambda value: jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=value.sharding), self.state
        )

    def _lower(self, state: steps.TrainState, call: Call, batch_size: int) -> jax.stages.Lowered:
        layout = self.inputs.layouts.training
        batches = layout.batches(call, self.placement.round_up(batch_size))
        return self.train_call.lower(state, layout.table(), batches, tasks=call.tasks)

    def out_of_memory(self) -> UserError:
        """Returns the error that says what would fit, after memory has run out."""
        call = self.stream.passes[0].calls(self.config.steps_per_call)[0]
        device = self.placement.device
        return out_of_memory.advise(
            partial(self._lower, self._abstract_state(), call),
            self.config.batch_size,
            table_bytes=self.inputs.table_bytes,
            limit=(device.memory_stats() or {}).get("bytes_limit") or psutil.virtual_memory().total,
            device=device.device_kind,
        )

    def train(self) -> Trained:
        self.inputs.warm_up()
        self._compile_ahead()
        started = time.perf_counter()
        training, self.validation_feed = self.inputs.open(lambda: self.programs.get("prefix"))
        self.read_seconds = time.perf_counter() - started
        validated = {entry["step"] for entry in self.history}
        # A signal may have come between the last step of a pass and its validation.
        passes = [p for p in self.stream.passes if p.end_step >= self.start and p.end_step not in validated]
        calls = [call for one in passes for call in self._calls(one)]
        batches = training(self.stream, calls)
        with SignalWatch() as watch:
            stop_request = StopRequest(watch, self.placement)
            for one in passes:
                speed = (
                    f"{self._train_pass(one, training, batches, stop_request):.0f} images/s; "
                    if self._calls(one)
                    else ""
                )
                results = self._validate(one, stop_request)
                figures = ", ".join(
                    f"{t} {format_accuracy(r.accuracy)} (loss {format_loss(r.loss)})" for t, r in results.items()
                )
                say(f"{self._title(one)}: {speed}validation: {figures}")
                # A run that was stopped in this validation has written its checkpoint without the figures.
                if one.last_of_epoch or one.end_step == self.start or self._is_due(self._last_call(one)):
                    self.save()
                self._stop_if_requested(stop_request, one.end_step)
        return self._finish()

    def _title(self, one: Pass) -> str:
        return f"epoch {one.epoch + 1}/{self.config.epochs} {'+'.join(one.tasks)}"

    def _train_pass(self, one: Pass, feed: Feed, batches: Iterator[Batches], stop_request: StopRequest) -> float:
        """Takes the steps of a pass that are left; returns the pictures per second."""
        calls = self._calls(one)
        done = (calls[0].first_step - one.first_step) * self.config.batch_size
        with Bar(self._title(one), one.num_pictures, completed=done) as bar:
            for call in calls:
                program = self.programs.get((call.tasks, call.num_steps))
                self.state, metrics = self.placement.in_turn(program(self.state, feed.table, next(batches)))
                # The figures come when they are there: nothing here waits for the step that was just begun.
                with jax.transfer_guard_device_to_host("allow"):  # which takes this call for an unasked one
                    jax.tree.map(lambda value: value.copy_to_host_async(), metrics)
                self._pending.append((call, one, metrics))
                before, done = done, min((call.end_step - one.first_step) * self.config.batch_size, one.num_pictures)
                bar.advance(done - before)
                if sum(pending.num_steps for pending, *_ in self._pending) >= self.config.log_every:
                    bar.note(self._flush(keep=_CALLS_AHEAD))
                if call.end_step < one.end_step:
                    self._stop_if_requested(stop_request, call.end_step)
                    if self._is_due(call):
                        self._flush()
                        self.save()
            self._flush()
            rate, seconds = bar.rate, bar.seconds
        self.train_seconds += seconds
        self.logs.write("pass", one.end_step, one.epoch + 1, tasks=one.tasks, seconds=seconds, images_per_s=rate)
        self._stop_if_requested(stop_request, one.end_step)
        return rate

    def _last_call(self, one: Pass) -> Call:
        return one.calls(self.config.steps_per_call)[-1]

    def _is_due(self, call: Call) -> bool:
        """Returns whether a checkpoint is due after a call; after the last of a pass it waits for the validation."""
        every = self.config.checkpoint_every
        return call.first_step // every < call.end_step // every

    def _stop_if_requested(self, stop_request: StopRequest, step: int) -> None:
        """Writes a checkpoint and raises `Interrupted` where a signal has come."""
        if (number := stop_request()) is None:
            return
        self._flush()
        self.save()
        self.checkpoints.wait()
        raise Interrupted(number, f"stopped at step {step} of {len(self.stream)}; add --resume to continue")

    def _flush(self, keep: int = 0) -> str:
        """Writes out the figures of all calls but the newest `keep`; returns the newest as text: loss and accuracy."""
        self.checkpoints.check()
        text = ""
        while len(self._pending) > keep:
            call, one, metrics = self._pending.popleft()
            host = jax.device_get(metrics)
            for number, step in enumerate(range(call.first_step + 1, call.end_step + 1)):
                metrics_of_step = {t: {name: v[number] for name, v in m.items()} for t, m in host.items()}
                if not all(np.isfinite(m["loss"]) and m.get("finite", True) for m in metrics_of_step.values()):
                    self._not_finite(metrics_of_step, step, one)
                    continue
                self._skipped = 0
                tasks = _figures(metrics_of_step)
                rate = float(self.learning_rates[step - 1])
                self.logs.write("train", step, one.epoch + 1, learning_rate=rate, tasks=tasks)
                text = "  ".join(
                    f"{task} {figures['loss']:.3f} {figures['accuracy']:.0%}" for task, figures in tasks.items()
                )
        return text

    def _not_finite(self, metrics: dict[str, dict[str, Any]], step: int, one: Pass) -> None:
        """Logs a step whose loss or gradients are not finite, and says so; raises UserError where that is to stop."""
        batch = self.stream[step - 1]
        pictures = [self.training.name(int(index)) for index in batch.indices[batch.mask]]
        losses = {task: str(float(metric["loss"])) for task, metric in metrics.items() if int(metric["count"])}
        self.logs.write("nonfinite", step, one.epoch + 1, tasks=list(metrics), losses=losses, pictures=pictures)
        bad = {task: loss for task, loss in losses.items() if not math.isfinite(float(loss))}
        what = " and ".join(f"the loss of {task} is {loss}" for task, loss in bad.items()) or "gradients are not finite"
        more = f" and {len(pictures) - _NAMED} more (in {run_folder.METRICS})" if len(pictures) > _NAMED else ""
        where = f"at step {step} of {len(self.stream)}, with the pictures {', '.join(pictures[:_NAMED])}{more}"
        self._skipped += 1
        if self.config.on_nonfinite == "skip" and self._skipped < _MOST_SKIPPED:
            say(f"{what} {where}: the step is skipped")
            return
        good = self.checkpoints.newest_step()
        last = "there is no checkpoint yet" if good is None else f"the last good checkpoint is that of step {good}"
        if self.config.on_nonfinite == "skip":
            raise UserError(
                f"{what} {where}; {self._skipped} steps in a row were skipped, which did not help; {last}, in "
                f"{self.checkpoints.folder}. Try a lower --learning-rate or look at the data"
            )
        raise UserError(
            f"{what} {where}; {last}, in {self.checkpoints.folder}. Look at the pictures, continue with --resume "
            "--on-nonfinite skip, or try a lower --learning-rate"
        )

    def _validate(self, one: Pass, stop_request: StopRequest) -> dict[str, HeadResult]:
        step = one.end_step
        results = self._evaluate(one.tasks, "validation", on_batch=lambda: self._stop_if_requested(stop_request, step))
        figures = {task: result.to_json() for task, result in results.items()}
        self.history += [{"step": step, "epoch": one.epoch + 1, "task": task, **figures[task]} for task in figures]
        self.logs.write("validation", step, one.epoch + 1, tasks=figures)
        return results

    def _evaluate(self, tasks: tuple[str, ...], title: str, **options: Any) -> dict[str, HeadResult]:
        started = time.perf_counter()
        pictures = self.evaluator.labelled(tasks)
        logits = self._logits(pictures, f"{title} {'+'.join(tasks)}", **options)
        # The last time, all heads are looked at: the report is made of the same answers.
        self._all_logits = logits if len(pictures) == len(self.validation) else None
        self.validate_seconds += time.perf_counter() - started
        return self.evaluator.figures(logits, pictures, tasks)

    def _logits(self, pictures: np.ndarray, title: str, **options: Any) -> dict[str, np.ndarray]:
        self.evaluator.use(self.programs.get("predict"))
        weights = steps.final_weights(self.state)
        return self.evaluator.logits(self.validation_feed, *weights, pictures, title=title, **options)

    def _finish(self) -> Trained:
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
            "timings": self._timings()._asdict(),
            "data": count_data({"train": self.training, "val": self.validation}, self.spec.classes),
            "environment": environment.of_run(),
        }
        if self.writes:
            run_folder.write_json(self.config.run / run_folder.RESULTS, checked_json.with_digest(results))
        # By all processes: it is a computation on all devices.
        logits = self._all_logits
        if logits is None:  # resumed after the last validation, or some pictures have no label
            logits = self._logits(np.arange(len(self.validation)), "report:")
        # With copies of its own: what is made of them is done by one process.
        final = self.placement.own_copies(steps.final_weights(self.state))
        model = nnx.merge(self.eval_graph, *final, copy=True)
        frozen = None
        if self.prefix is not None:
            frozen = Frozen(self.prefix.until, partial(self.prefix.of, program=self.programs.get("prefix")))
        return Trained(
            results, logits, self.config, self.spec, model, frozen, training=self.training, validation=self.validation
        )

    def _timings(self) -> Timings:
        return Timings(
            start=self.start_seconds,
            read=self.read_seconds,
            compile_wait=self.programs.wait_seconds,
            train=self.train_seconds,
            validate=self.validate_seconds,
            compile=self.programs.compile_seconds,
        )


def _figures(metrics: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Returns what is logged of a step: of each task that had labels in it."""
    return {
        task: {"loss": float(metric["loss"]), "accuracy": int(metric["correct"]) / int(metric["count"])}
        for task, metric in metrics.items()
        if int(metric["count"])
    }


def _has_checkpoint(run: Path) -> bool:
    """Returns whether there is one to go on from; the weights that the run began with are not needed then."""
    if not (run / checkpoints.FOLDER).is_dir():
        return False
    store = checkpoints.Checkpoints(run, read_only=True)
    try:
        return bool(store.steps())
    finally:
        store.close()


def _earlier_spec(config: TrainConfig) -> ModelSpec | None:
    """Returns what the model of the newest checkpoint that can be read is; None where there is none."""
    if not (config.run / checkpoints.FOLDER).is_dir():
        return None
    store = checkpoints.Checkpoints(config.run, read_only=True)
    try:
        for step in store.steps():
            with contextlib.suppress(checkpoints.DamagedError):  # which is reported where it is restored
                return store.spec(step, before={name: getattr(config, name) for name in NUMERICS})
        return None
    finally:
        store.close()


def _recorded(config: TrainConfig, data: RunData, placement: Placement) -> DataRecord:
    """Returns the record of the data; refuses data that are not those of the run that is resumed."""
    record = DataRecord.of(data.training, data.validation)
    checksum = record.checksum()
    if placement.least(checksum) != -placement.least(-checksum):
        raise UserError("the processes have different data; prepare the same on each host")
    if config.resume and _has_checkpoint(config.run) and (unchecked := require_same(config.run, record)):
        say(unchecked)
    if doubled := int(np.isin(data.validation.digests(), record.trained).sum()):
        say(
            f"{doubled:,} of {len(data.validation):,} validation pictures are copies of training pictures; "
            "`facefeat audit` lists them"
        )
    return record
