"""Evaluation: every head over the pictures that have its label."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from facefeat_jax.data.dataset import default_data_dir
from facefeat_jax.data.examples import UNKNOWN, Examples
from facefeat_jax.data.feeds import Feed, Layout
from facefeat_jax.data.index_stream import Call, in_order
from facefeat_jax.data.pixels import PixelFormat, open_rows
from facefeat_jax.data.placement import Placement
from facefeat_jax.evaluation.answers import Answers
from facefeat_jax.evaluation.metrics import HeadResult, head_result
from facefeat_jax.forward import FEATURES, make_predict_call, make_predict_step
from facefeat_jax.models._values import Values, split_values
from facefeat_jax.runs.checkpoints import Which
from facefeat_jax.runs.run_folder import Run, open_run
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.runs.unseen import open_unseen
from facefeat_jax.system import kinds
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.progress import Bar, say, slow_at_first

_ACCELERATOR_BATCH = 256
_WAITING = 8  # batches; each holds the features of its pictures


class Evaluator:
    """Runs all heads of a model over validation pictures, in order.

    All heads run in one program: the trunk dominates the cost, and each further program would have to be compiled.

    Args:
      graphdef: graph definition of the model in evaluation mode.
      spec: what the model is.
      examples: the labels.
      placement: the devices.
      batch_size: pictures per batch in `HeadResult.loss_of_batches`.
      dtype: dtype of the computation.
      after: the stage of the trunk that the rows of its feeds come from.
    """

    def __init__(
        self,
        graphdef: nnx.GraphDef,
        spec: ModelSpec,
        examples: Examples,
        placement: Placement,
        *,
        batch_size: int,
        dtype: DTypeLike,
        after: str | None = None,
    ):
        self._heads = tuple(spec.classes)
        self._placement = placement
        self._call = make_predict_call(make_predict_step(graphdef, spec, dtype, after=after, features=True), placement)
        self._program: Callable[..., Any] = slow_at_first(
            partial(self._call, tasks=self._heads), "compiling the evaluation"
        )
        self._examples = examples
        self._batch_size = batch_size
        # How many pictures run at a time changes no figure; on an accelerator, few do not fill it.
        at_least = 1 if placement.device.platform == "cpu" else _ACCELERATOR_BATCH
        self._padded_size = placement.round_up(max(batch_size, at_least))

    def lower(self, params: Values, batch_stats: Values, layout: Layout) -> jax.stages.Lowered:
        """Traces the program, for compiling it ahead; arguments as for `logits`, or their shapes."""
        batches = layout.batches(Call(0, 1, ()), self._padded_size)
        return self._call.lower(params, batch_stats, layout.table(), batches, tasks=self._heads)

    def use(self, program: Callable[..., Any]) -> None:
        """Uses what `lower` was compiled to."""
        self._program = program

    def labelled(self, tasks: Sequence[str]) -> np.ndarray:
        """Returns the numbers of the pictures that have a label for any of the tasks, ascending."""
        return np.flatnonzero(np.any([self._examples.labels[task] != UNKNOWN for task in tasks], axis=0))

    def logits(
        self,
        feed: Feed,
        params: Values,
        batch_stats: Values,
        pictures: np.ndarray,
        *,
        title: str = "evaluating",
        on_batch: Callable[[], object] = lambda: None,
    ) -> dict[str, np.ndarray]:
        """Returns each head's logits `[n, outputs]`, whatever labels the pictures have, and the pooled `FEATURES`.

        Args:
          feed: the pictures, or with `after` the outputs of that stage.
          params: as in `TrainState`.
          batch_stats: as in `TrainState`.
          pictures: their numbers `[n]` in the examples.
          title: title of the progress bar.
          on_batch: called after each batch; it may raise, to give up.
        """
        steps = in_order(pictures, (), self._padded_size)
        calls = [Call(number, 1, ()) for number in range(len(steps))]
        # A few wait on the device: reading the last one back would stall the next.
        waiting: deque[Any] = deque()
        read = []
        with Bar(title, len(pictures)) as bar:
            for step, batch in zip(steps, feed(steps, calls), strict=True):
                waiting.append(self._placement.in_turn(self._program(params, batch_stats, feed.table, batch)))
                if len(waiting) > _WAITING:
                    read.append(jax.device_get(waiting.popleft()))
                bar.advance(int(step.mask.sum()))
                on_batch()
        read += jax.device_get(list(waiting))
        names = (*self._heads, FEATURES)
        return {name: np.concatenate([batch[name] for batch in read])[: len(pictures)] for name in names}

    def figures(
        self, logits: dict[str, np.ndarray], pictures: np.ndarray, tasks: Sequence[str]
    ) -> dict[str, HeadResult]:
        """Returns the figures of heads on the pictures that have their label, of what `logits` returned."""
        found = {}
        for task in tasks:
            labels = self._examples.labels[task][pictures]
            known = labels != UNKNOWN
            found[task] = head_result(logits[task][known], labels[known], batch_size=self._batch_size)
        return found


@dataclass(frozen=True)
class RunAnswers:
    """The answers of a run on prepared data, with what further analysis needs.

    Attributes:
      run: the run, with its model.
      batch_size: pictures at a time.
      data_dir: folder of the prepared data.
      examples: the pictures.
      answers: the answers of every head.
      notes: lines about differences from the run's data, and about pictures left out.
    """

    run: Run
    batch_size: int
    data_dir: Path
    examples: Examples
    answers: Answers
    notes: tuple[str, ...] = ()


def answers_of_run(
    folder: Path,
    *,
    sources: Sequence[str] | None = None,
    data_dir: Path | None = None,
    batch_size: int | None = None,
    checkpoint: Which = "newest",
    run: Run | None = None,
) -> RunAnswers:
    """Runs all heads of a run's checkpoint on the validation split of its data, or of other prepared data.

    Pictures that the run was trained on are left out (`unseen.open_unseen`); how the data differ is reported.

    Args:
      folder: the run folder.
      sources: prepared data sets; the default is those that the run was trained on.
      data_dir: where they lie; the default is the run's.
      batch_size: pictures at a time; the default is the run's.
      checkpoint: `newest` or `best`; see `run_folder.open_run`.
      run: the run, where it is open already.

    Raises:
      UserError: not a run, data not prepared, classes that don't fit, no label for any head, or logits that are not
        finite.
    """
    run = run or open_run(folder, checkpoint)
    data, batches = run.config.data, run.config.batches
    if batch_size is not None:
        batches = dataclasses.replace(batches, batch_size=batch_size)
    where = data_dir or data.data_dir or default_data_dir()
    names = kinds.names(sources or data.sources, "sources")
    if not names:
        raise UserError(f"{folder} was not trained on a data set; name one with --data")
    # The run's limit belongs to the run's data.
    limit = data.limit if sources is None else None
    examples, notes = open_unseen(run, names, where, limit=limit)
    for line in notes:
        say(line)
    if not any(len(examples.labelled(task)) for task in run.spec.classes):
        raise UserError(
            f"no picture of {', '.join(names)} has a label for any head of {folder} ({', '.join(run.spec.classes)})"
        )
    answers = answers_on(run, examples, batch_size=batches.batch_size, title="evaluating val")
    return RunAnswers(run, batches.batch_size, where, examples, answers, tuple(notes))


def answers_on(run: Run, examples: Examples, *, batch_size: int, title: str) -> Answers:
    """Runs all heads of a run on pictures.

    Args:
      run: the run.
      examples: the pictures.
      batch_size: pictures at a time.
      title: title of the progress bar.

    Raises:
      UserError: logits that are not finite, or pictures that can't be read.
    """
    graphdef, params, batch_stats = split_values(run.model)
    placement, pipeline = Placement(), run.config.pipeline
    evaluator = Evaluator(graphdef, run.spec, examples, placement, batch_size=batch_size, dtype=run.spec.dtype)
    pixels = PixelFormat(run.spec.image_size, run.spec.decode, run.spec.interpolation)
    rows = open_rows(examples, pixels, pipeline.packed)
    feed = Feed(examples, placement, rows, None, pipeline.feed_threads, pipeline.feed_prefetch)
    params, batch_stats = jax.device_put((params, batch_stats), placement.replicated)
    logits = evaluator.logits(feed, params, batch_stats, np.arange(len(examples)), title=title)
    return Answers.of(examples, run.spec.classes, logits)


def evaluate_run(
    folder: Path,
    *,
    sources: Sequence[str] | None = None,
    data_dir: Path | None = None,
    batch_size: int | None = None,
    checkpoint: Which = "newest",
) -> dict[str, HeadResult]:
    """Evaluates a run's checkpoint on the validation split of its data, or of other prepared data.

    Arguments and errors are those of `answers_of_run`; `assessment.assess_run` says more of the same pictures.

    Returns:
      The figures of every head for which there are labels.
    """
    found = answers_of_run(folder, sources=sources, data_dir=data_dir, batch_size=batch_size, checkpoint=checkpoint)
    return head_results(found.answers, batch_size=found.batch_size)


def head_results(answers: Answers, *, batch_size: int) -> dict[str, HeadResult]:
    """Returns the figures of every head for which there are labels; `batch_size` is for `loss_of_batches`."""
    return {
        task: head_result(*answers.labelled(task), batch_size=batch_size)
        for task in answers.classes
        if answers.count(task)
    }
