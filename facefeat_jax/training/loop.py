"""The training loop: passes, calls of the step, logs, checkpoints, validation."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from facefeat_jax.config import TrainConfig
from facefeat_jax.data._decoding_process import DecodingProcess
from facefeat_jax.data.examples import Examples, count_data
from facefeat_jax.data.index_stream import Call
from facefeat_jax.evaluation.explain import Frozen
from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.runs._recorder import RunRecorder, held
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system import compiling, environment
from facefeat_jax.system.errors import Interrupted, UserError
from facefeat_jax.system.progress import Bar, say
from facefeat_jax.system.text import format_accuracy, format_loss
from facefeat_jax.training import _out_of_memory as out_of_memory
from facefeat_jax.training import _saved_state as saved_state
from facefeat_jax.training._decoding import decode_ahead
from facefeat_jax.training._interrupt import SignalWatch, StopRequest
from facefeat_jax.training._setup import Session, open_session, own_copies
from facefeat_jax.training._step_figures import StepFigures
from facefeat_jax.training._validator import Validator
from facefeat_jax.training.steps import TrainState, final_weights

# How many calls may be under way before the figures of the first are waited for.
_CALLS_AHEAD = 2


class Timings(NamedTuple):
    """The time that a process spent, in seconds; work that ran beside other work does not count.

    The first step is part of `train`, but for its own figure.

    Attributes:
      start: until the first picture was read: opening data, making the model.
      read: reading, decoding and resizing, the outputs of frozen stages, the way to the device.
      compile_wait: waiting for programs.
      train: in steps, including waiting for pictures.
      validate: validation.
      compile: tracing and compiling, mostly beside the above.
      first_step: from the beginning until the first call of the step was done; 0 where there was none to do.
    """

    start: float
    read: float
    compile_wait: float
    train: float
    validate: float
    compile: float
    first_step: float


@dataclass(frozen=True, eq=False)
class Trained:
    """A finished training.

    Attributes:
      results: what `results.json` holds: `heads` (figures of the final weights), `history` (every validation), `steps`,
        `seconds`, `timings` (where they went, `Timings`), `programs` (`compiling.Program`, of this process until
        here), `data` (counts), `environment`.
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
    with training(config) as trained:
        return trained


@contextlib.contextmanager
def training(config: TrainConfig, decoding: DecodingProcess | None = None) -> Iterator[Trained]:
    """Trains as `train` does, and holds the run folder until the block ends, for whoever writes into it what is left.

    Errors are those of `train`.

    Args:
      config: what to do; `smoke` is applied here.
      decoding: what has begun to decode its pictures (`decode_at_once`), if anything has.
    """
    began = time.perf_counter()
    compiling.listen()
    session = open_session(config)
    with held(session.config):
        run = RunRecorder(session.config, session.spec, session.record, len(session.data.stream), began)
        ahead = contextlib.nullcontext(decoding) if decoding else decode_ahead(session.config, session.inputs.pixels)
        with contextlib.closing(session.programs), ahead as decoding, run:
            try:
                trained = _train(session, run, began, decoding)
            except UserError:
                raise  # a disk that is full is called RESOURCE_EXHAUSTED too
            except Exception as error:
                if not out_of_memory.is_out_of_memory(error):
                    raise
                raise session.out_of_memory() from error
        yield trained


def _train(session: Session, run: RunRecorder, began: float, decoding: DecodingProcess | None) -> Trained:
    """Trains from the start, or from the newest checkpoint, to the end."""
    config, placement, programs, stream = session.config, session.placement, session.programs, session.data.stream
    batch_size, every = config.batches.batch_size, config.checkpoints.checkpoint_every
    trees = run.begin(saved_state.trees_like(session.state))
    session.compile_ahead()
    state = _first_state(session, trees)
    start_seconds, train_seconds, first_step_seconds = time.perf_counter() - began, 0.0, 0.0

    reading = time.perf_counter()
    training, validation = session.inputs.open(decoding)
    read_seconds = time.perf_counter() - reading
    validator, figures = Validator(session, validation), StepFigures(session, run)

    # A signal may have come between the last step of a pass and its validation.
    validated = {entry["step"] for entry in run.history}
    passes = [one for one in stream.passes if one.end_step >= run.start and one.end_step not in validated]
    batches = training(stream, [call for one in passes for call in session.calls(one, run.start)])

    def save(step: int) -> None:
        run.save(step, saved_state.to_trees(state))

    with SignalWatch() as watch:
        requested = StopRequest(watch, placement)

        def stop_if_requested(step: int) -> None:
            """Writes a checkpoint and raises `Interrupted` where a signal has come."""
            if (number := requested()) is None:
                return
            figures.flush()
            save(step)
            run.checkpoints.wait()
            raise Interrupted(number, f"stopped at step {step} of {len(stream)}; add --resume to continue")

        for number, one in enumerate(passes, 1):
            # The heads are named where there are passes for each.
            of = "" if len(one.tasks) == len(config.data.tasks) else f" {'+'.join(one.tasks)}"
            title, speed = f"epoch {one.epoch + 1}/{config.batches.epochs}{of}", ""
            if calls := session.calls(one, run.start):
                done = (calls[0].first_step - one.first_step) * batch_size
                after = sum(later.num_pictures for later in passes[number:])
                with Bar(title, one.num_pictures, completed=done, after=after) as bar:
                    for call in calls:
                        program = programs.get((call.tasks, call.num_steps))
                        state, metrics = placement.in_turn(program(state, training.table, next(batches)))
                        if not first_step_seconds:
                            jax.block_until_ready(metrics)
                            first_step_seconds = time.perf_counter() - began
                            programs.begin_later()
                        figures.add(call, one, metrics)  # which does not wait for the step that was just begun
                        before, done = done, min((call.end_step - one.first_step) * batch_size, one.num_pictures)
                        bar.advance(done - before)
                        # A bar that is looked at counts what is done, not what was begun.
                        if bar.is_shown or figures.num_pending >= config.checkpoints.log_every:
                            bar.note(figures.flush(keep=_CALLS_AHEAD))
                        if call.end_step < one.end_step:  # after the last call the validation comes first
                            stop_if_requested(call.end_step)
                            if _is_due(call, every):
                                figures.flush()
                                save(call.end_step)
                    figures.flush()
                    rate, seconds = bar.rate, bar.seconds
                train_seconds += seconds
                run.logs.write("pass", one.end_step, one.epoch + 1, tasks=one.tasks, seconds=seconds, images_per_s=rate)
                speed = f"{rate:.0f} images/s; "
                stop_if_requested(one.end_step)

            results = validator.results(
                state, one.tasks, f"{title}, validation", on_batch=partial(stop_if_requested, one.end_step)
            )
            run.add_validation(one.end_step, one.epoch + 1, {t: r.to_json() for t, r in results.items()})
            shown = [f"{t} {format_accuracy(r.accuracy)} (loss {format_loss(r.loss)})" for t, r in results.items()]
            say(f"{title}: {speed}validation: {', '.join(shown)}")
            # A run that was stopped in this validation has written its checkpoint without the figures.
            last = session.calls(one)[-1]
            if one.last_of_epoch or one.end_step == run.start or _is_due(last, every):
                save(one.end_step)
            stop_if_requested(one.end_step)

    # From here on a signal ends the process; what was trained is on disk by then.
    run.checkpoints.wait()
    heads = validator.final_results(state, run.history)
    timings = Timings(
        start=start_seconds,
        read=read_seconds,
        compile_wait=programs.wait_seconds,
        train=train_seconds,
        validate=validator.seconds,
        compile=programs.compile_seconds,
        first_step=first_step_seconds,
    )
    results_json = {
        "heads": heads,
        "history": run.history,
        "steps": len(stream),
        "seconds": run.seconds(),
        "timings": timings._asdict(),
        "programs": [program.to_json(began) for program in compiling.since(began)],
        "data": count_data({"train": session.data.training, "val": session.data.validation}, session.spec.classes),
        "environment": environment.of_run(),
    }
    run.write_results(results_json)
    return _trained(session, state, results_json, validator.final_logits(state))


def _first_state(session: Session, trees: dict[str, Any] | None) -> TrainState:
    """Returns the state that training starts from: that of a checkpoint, or a new one."""
    if trees is None:
        return session.begin()
    state = saved_state.from_trees(trees)
    if session.prefix is not None:
        session.prefix.use(*own_copies(state, session.placement))
    return state


def _is_due(call: Call, every: int) -> bool:
    """Returns whether a checkpoint is due after a call; after the last of a pass it waits for the validation."""
    return call.first_step // every < call.end_step // every


def _trained(session: Session, state: TrainState, results: dict[str, Any], logits: dict[str, np.ndarray]) -> Trained:
    # With copies of its own: what is made of them is done by one process.
    final = session.placement.own_copies(final_weights(state))
    frozen, prefix = None, session.prefix
    if prefix is not None:
        frozen = Frozen(prefix.until, prefix.of)
    return Trained(
        results=results,
        logits=logits,
        config=session.config,
        spec=session.spec,
        model=nnx.merge(session.eval_graph, *final, copy=True),
        frozen=frozen,
        training=session.data.training,
        validation=session.data.validation,
    )
