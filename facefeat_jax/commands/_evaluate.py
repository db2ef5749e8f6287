"""`facefeat evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from facefeat_jax.system.errors import UserError
from facefeat_jax.system.progress import say, show, show_json


@dataclass(frozen=True)
class Arguments:
    """Prints the metrics of every head on the validation pictures, with 95% confidence intervals.

    On the run's own data it also calibrates the run. `predict` then gives probabilities that match observed
    frequencies, and answers `unsure` where a head is not reliable. The metrics, the slices by group and the calibration
    are written into the run folder as JSON and CSV, and into its report and model card.
    """

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    data: tuple[str, ...] = ()
    """Names of prepared data sets. The default is the run's own."""
    data_dir: Path | None = None
    """Folder of the prepared data sets. The default is the run's."""
    batch_size: int | None = None
    """Pictures per batch. The default is the run's."""
    checkpoint: Literal["newest", "best"] = "newest"
    """Checkpoint to use. `best` has the highest validation accuracy; it exists if training used --keep-best."""
    error_rate: float = 0.05
    """Largest acceptable fraction of wrong answers. `predict` answers `unsure` where a head can't guarantee it."""
    json: bool = False
    """Print JSON."""


def run(arguments: Arguments) -> int:
    """Evaluates a run, prints the metrics and saves them; returns the exit code.

    Metrics that can't be saved are printed all the same, with the reason: a shared run may be read-only.

    Raises:
      UserError: the run or the data can't be used.
    """
    from facefeat_jax.runs.run_config import read_config

    read_config(arguments.run)  # before the slow imports
    if arguments.data:
        from facefeat_jax.data.dataset import default_data_dir, require_prepared

        require_prepared(arguments.data, arguments.data_dir or default_data_dir())
    from facefeat_jax.system.runtime import start_up

    start_up()
    from facefeat_jax.evaluation.assessment import assess_run
    from facefeat_jax.reporting._publish import publish
    from facefeat_jax.reporting.table import gap_lines, scores_table

    found = assess_run(
        arguments.run,
        sources=arguments.data or None,
        data_dir=arguments.data_dir,
        batch_size=arguments.batch_size,
        checkpoint=arguments.checkpoint,
        error_rate=arguments.error_rate,
    )
    if arguments.json:
        show_json(found.assessment.to_json())
    else:
        show(*scores_table(found.assessment.scores).split("\n"))
        for line in gap_lines(found.assessment):
            say(line)
    try:
        for line in publish(arguments.run, found):
            say(line)
    except UserError as error:
        say(f"not everything was saved: {error}")
    return 0
