"""Evaluation: every head over the pictures that have its label."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from facefeat_jax.config import TrainConfig
from facefeat_jax.data.dataset import default_data_dir
from facefeat_jax.data.examples import Examples, open_examples
from facefeat_jax.data.feeds import Feed, Layout
from facefeat_jax.data.index_stream import Call, in_order
from facefeat_jax.data.pixels import PixelFormat, open_rows
from facefeat_jax.data.placement import Placement
from facefeat_jax.errors import UserError
from facefeat_jax.evaluation.answers import Answers
from facefeat_jax.evaluation.metrics import HeadResult, head_result
from facefeat_jax.evaluation.predict_step import make_predict_call, make_predict_step
from facefeat_jax.models.values import Values, split_values
from facefeat_jax.progress import Bar
from facefeat_jax.run_folder import Run, open_run
from facefeat_jax.spec import ModelSpec
from facefeat_jax.training.checkpoints import Which

_ACCELERATOR_BATCH = 256


@dataclass(frozen=True)
class Outputs:
    """What one head said of the pictures that have its label.

    Attributes:
      logits: `[n, outputs]`.
      labels: `[n]`, class numbers.
      indices: `[n]`, the pictures' numbers in `Examples`.
    """

    logits: np.ndarray
    labels: np.ndarray
    indices: np.ndarray


class Evaluator:
    """Runs heads over validation pictures, in order.

    Args:
      graphdef: of the model in evaluation mode.
      spec: what the model is.
      examples: the labels.
      placement: the devices.
      batch_size: how many pictures the loss of a batch is taken over (`HeadResult.loss_of_batches`).
      dtype: of the computation.
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
        self._call = make_predict_call(make_predict_step(graphdef, spec, dtype, after=after), placement)
        self._examples = examples
        self._batch_size = batch_size
        # How many pictures run at a time changes no figure; on an accelerator, few do not fill it.
        at_least = 1 if placement.device.platform == "cpu" else _ACCELERATOR_BATCH
        self._padded_size = placement.round_up(max(batch_size, at_least))
        self._programs: dict[tuple[str, ...], Callable[..., Any]] = {}

    def kinds(self, tasks: Sequence[str]) -> list[tuple[str, ...]]:
        """Returns the sets of heads that run together: those for which the same pictures have labels."""
        return list(self._rows_of(tasks))

    def _rows_of(self, tasks: Sequence[str]) -> dict[tuple[str, ...], np.ndarray]:
        known = np.stack([self._examples.labels[task] >= 0 for task in tasks], axis=1)
        patterns = np.unique(known[known.any(axis=1)], axis=0)[::-1]
        return {
            tuple(task for task, labelled in zip(tasks, pattern, strict=True) if labelled): np.flatnonzero(
                (known == pattern).all(axis=1)
            )
            for pattern in patterns
        }

    def lower(self, heads: tuple[str, ...], params: Values, batch_stats: Values, layout: Layout) -> jax.stages.Lowered:
        """Traces the program of some heads, for compiling it ahead."""
        batches = layout.batches(Call(0, 1, heads), self._padded_size)
        return self._call.lower(params, batch_stats, layout.table(), batches, tasks=heads)

    def use(self, heads: tuple[str, ...], program: Callable[..., Any]) -> None:
        """Uses a program that `lower` was compiled to."""
        self._programs[heads] = program

    def outputs(
        self,
        feed: Feed,
        params: Values,
        batch_stats: Values,
        tasks: Sequence[str],
        *,
        title: str = "evaluating",
        on_batch: Callable[[], object] = lambda: None,
    ) -> dict[str, Outputs]:
        """Returns each head's outputs on the pictures that have its label.

        Pictures that carry the same set of labels go through the trunk once, with all their heads.

        Args:
          feed: the pictures, or with `after` the outputs of that stage.
          params: as in `TrainState`.
          batch_stats: as in `TrainState`.
          tasks: the heads.
          title: of the progress bar.
          on_batch: called after each batch; it may raise, to give up.
        """
        logits = self._run(feed, params, batch_stats, self._rows_of(tasks), tasks, title, on_batch)
        return {
            task: Outputs(values, self._examples.labels[task][indices], indices)
            for task, (values, indices) in logits.items()
        }

    def all_logits(
        self, feed: Feed, params: Values, batch_stats: Values, tasks: Sequence[str], *, title: str = "evaluating"
    ) -> dict[str, np.ndarray]:
        """Returns each head's logits `[n, outputs]` on every picture, whatever labels it has.

        Arguments are those of `outputs`.
        """
        rows_of = {tuple(tasks): np.arange(len(self._examples))}
        return {
            task: logits for task, (logits, _) in self._run(feed, params, batch_stats, rows_of, tasks, title).items()
        }

    def _run(
        self,
        feed: Feed,
        params: Values,
        batch_stats: Values,
        rows_of: Mapping[tuple[str, ...], np.ndarray],
        tasks: Sequence[str],
        title: str,
        on_batch: Callable[[], object] = lambda: None,
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Runs heads on the pictures given for them; returns each head's logits with the numbers of the pictures."""
        collected: dict[str, list[tuple[Any, np.ndarray]]] = {task: [] for task in tasks}
        with Bar(title, sum(map(len, rows_of.values()))) as bar:
            for heads, rows in rows_of.items():
                program = self._programs.get(heads) or partial(self._call, tasks=heads)
                steps = in_order(rows, heads, self._padded_size)
                calls = [Call(number, 1, heads) for number in range(len(steps))]
                for step, batches in zip(steps, feed(steps, calls), strict=True):
                    logits = program(params, batch_stats, feed.table, batches)
                    real = step.indices[step.mask]
                    for task in heads:
                        # Kept on the device until the end: reading a batch back would stall the next one.
                        collected[task].append((logits[task], real))
                    bar.advance(len(real))
                    on_batch()
        results = {}
        for task, parts in collected.items():
            logits = [value[: len(indices)] for value, indices in jax.device_get(parts)]
            results[task] = np.concatenate(logits), np.concatenate([indices for _, indices in parts])
        return results

    def results(
        self, feed: Feed, params: Values, batch_stats: Values, tasks: Sequence[str], **options: Any
    ) -> dict[str, HeadResult]:
        """Returns each head's figures; arguments are those of `outputs`."""
        outputs = self.outputs(feed, params, batch_stats, tasks, **options)
        return {task: head_result(out.logits, out.labels, batch_size=self._batch_size) for task, out in outputs.items()}


@dataclass(frozen=True)
class RunAnswers:
    """What a run says of prepared data, with what is needed to look further.

    Attributes:
      run: the run, with its model.
      config: the run's, with what the call changed.
      data_dir: where the prepared data lie.
      examples: the pictures.
      answers: what every head says of each of them.
    """

    run: Run
    config: TrainConfig
    data_dir: Path
    examples: Examples
    answers: Answers


def answers_of_run(
    folder: Path,
    split: Literal["train", "val"] = "val",
    *,
    sources: Sequence[str] | None = None,
    data_dir: Path | None = None,
    batch_size: int | None = None,
    checkpoint: Which = "newest",
    run: Run | None = None,
) -> RunAnswers:
    """Runs all heads of a run's checkpoint on a split of its data, or of other prepared data.

    Args:
      folder: the run folder.
      split: which half of the data.
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
    config = run.config if batch_size is None else dataclasses.replace(run.config, batch_size=batch_size)
    where = data_dir or config.data_dir or default_data_dir()
    names = tuple(sources or config.sources)
    if not names:
        raise UserError(f"{folder} was not trained on a data set; name one with --data")
    # The run's limit belongs to the run's data.
    limit = config.limit if sources is None else None
    examples = open_examples(names, split, where, run.spec.classes, limit=limit, need_all=False)
    if not any(len(examples.labelled(task)) for task in run.spec.classes):
        raise UserError(
            f"no picture of {', '.join(names)} has a label for any head of {folder} ({', '.join(run.spec.classes)})"
        )
    graphdef, params, batch_stats = split_values(run.model)
    placement = Placement()
    evaluator = Evaluator(graphdef, run.spec, examples, placement, batch_size=config.batch_size, dtype=config.dtype)
    pixels = PixelFormat(run.spec.image_size, run.spec.decode, run.spec.interpolation)
    rows = open_rows(examples, pixels, config.packed)
    feed = Feed(examples, placement, rows, None, config.feed_threads, config.feed_prefetch)
    params, batch_stats = jax.device_put((params, batch_stats), placement.replicated)
    logits = evaluator.all_logits(feed, params, batch_stats, tuple(run.spec.classes), title=f"evaluating {split}")
    return RunAnswers(run, config, where, examples, Answers.of(examples, run.spec.classes, logits))


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
    return head_results(found.answers, batch_size=found.config.batch_size)


def head_results(answers: Answers, *, batch_size: int) -> dict[str, HeadResult]:
    """Returns the figures of every head for which there are labels; `batch_size` is for `loss_of_batches`."""
    return {
        task: head_result(*answers.labelled(task), batch_size=batch_size)
        for task in answers.classes
        if answers.count(task)
    }
