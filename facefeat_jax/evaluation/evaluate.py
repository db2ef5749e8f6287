"""Evaluation: every head over the pictures that have its label."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from facefeat_jax.config import TrainConfig
from facefeat_jax.data import feeds
from facefeat_jax.data.dataset import default_data_dir
from facefeat_jax.data.examples import Examples, open_examples
from facefeat_jax.data.index_stream import in_order
from facefeat_jax.errors import UserError
from facefeat_jax.evaluation.metrics import HeadResult, head_result
from facefeat_jax.evaluation.predict_step import make_predict_step
from facefeat_jax.models.values import Values, split_values
from facefeat_jax.progress import Bar
from facefeat_jax.run_folder import open_run
from facefeat_jax.spec import ModelSpec


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
      examples: the pictures.
      config: batch size, feed and dtype.
    """

    def __init__(self, graphdef: nnx.GraphDef, spec: ModelSpec, examples: Examples, config: TrainConfig):
        self._predict = make_predict_step(graphdef, spec, config.dtype)
        self._spec = spec
        self._examples = examples
        self._config = config

    def outputs(
        self, params: Values, batch_stats: Values, tasks: Sequence[str], *, title: str = "evaluating"
    ) -> dict[str, Outputs]:
        """Returns each head's outputs on the pictures that have its label.

        Pictures that carry the same set of labels go through the trunk once, with all their heads.

        Args:
          params: as in `TrainState`.
          batch_stats: as in `TrainState`.
          tasks: the heads.
          title: of the progress bar.
        """
        known = np.stack([self._examples.labels[task] >= 0 for task in tasks], axis=1)
        collected: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {task: [] for task in tasks}
        with Bar(title, int(known.any(axis=1).sum())) as bar:
            for pattern in np.unique(known[known.any(axis=1)], axis=0)[::-1]:
                heads = tuple(task for task, labelled in zip(tasks, pattern, strict=True) if labelled)
                rows = np.flatnonzero((known == pattern).all(axis=1))
                for batch in self._feed(rows, heads):
                    logits = self._predict(params, batch_stats, batch.images, tasks=heads)
                    count = int(batch.mask.sum())
                    for task in heads:
                        # Kept on the device until the end: reading a batch back would stall the next one.
                        collected[task].append((logits[task], batch.indices[:count]))
                    bar.advance(count)
        results = {}
        for task, parts in collected.items():
            logits = [value[: len(indices)] for value, indices in jax.device_get(parts)]
            indices = np.concatenate([indices for _, indices in parts])
            results[task] = Outputs(np.concatenate(logits), self._examples.labels[task][indices], indices)
        return results

    def _feed(self, rows: np.ndarray, heads: tuple[str, ...]) -> Iterator[feeds.Batch]:
        return feeds.stream(
            in_order(rows, heads, self._config.batch_size),
            self._examples,
            image_size=self._spec.image_size,
            decode=self._spec.decode,
            threads=self._config.feed_threads,
            prefetch=self._config.feed_prefetch,
        )

    def results(
        self, params: Values, batch_stats: Values, tasks: Sequence[str], *, title: str = "evaluating"
    ) -> dict[str, HeadResult]:
        """Returns each head's figures; arguments are those of `outputs`."""
        outputs = self.outputs(params, batch_stats, tasks, title=title)
        return {
            task: head_result(out.logits, out.labels, batch_size=self._config.batch_size)
            for task, out in outputs.items()
        }


def evaluate_run(
    folder: Path,
    *,
    sources: Sequence[str] | None = None,
    data_dir: Path | None = None,
    batch_size: int | None = None,
) -> dict[str, HeadResult]:
    """Evaluates a run's newest checkpoint on the validation split of its data, or of other prepared data.

    Args:
      folder: the run folder.
      sources: prepared data sets; the default is those that the run was trained on.
      data_dir: where they lie; the default is the run's.
      batch_size: pictures at a time; the default is the run's.

    Returns:
      The figures of every head for which there are labels.

    Raises:
      UserError: not a run, data not prepared, or classes that don't fit.
    """
    run = open_run(folder)
    config = run.config if batch_size is None else dataclasses.replace(run.config, batch_size=batch_size)
    where = data_dir or config.data_dir or default_data_dir()
    names = tuple(sources or config.sources)
    if not names:
        raise UserError(f"{folder} was not trained on a data set; name one with --data")
    # The run's limit belongs to the run's data.
    limit = config.limit if sources is None else None
    examples = open_examples(names, "val", where, run.spec.classes, limit=limit, need_all=False)
    tasks = [task for task in run.spec.classes if len(examples.labelled(task))]
    if not tasks:
        raise UserError(
            f"no picture of {', '.join(names)} has a label for any head of {folder} ({', '.join(run.spec.classes)})"
        )
    graphdef, params, batch_stats = split_values(run.model)
    evaluator = Evaluator(graphdef, run.spec, examples, config)
    return evaluator.results(params, batch_stats, tasks)
