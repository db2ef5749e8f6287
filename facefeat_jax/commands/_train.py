"""`facefeat train`: checks that are quick, then training, then the pages of the run."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facefeat_jax.config import TrainConfig
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.progress import say, show

if TYPE_CHECKING:
    from facefeat_jax.data._decoding_process import DecodingProcess


def run(config: TrainConfig) -> int:
    """Trains a model and prints the table of results; returns the exit code.

    Args:
      config: a recipe with what the command line changes; `smoke` is applied here.

    Raises:
      UserError, Interrupted: as `train`.
    """
    from facefeat_jax.config import apply_smoke

    config = apply_smoke(config)
    check(config)
    from facefeat_jax.training._decoding import decode_at_once

    with decode_at_once(config) as decoding:
        return _run(config, decoding)


def _run(config: TrainConfig, decoding: DecodingProcess | None) -> int:
    from facefeat_jax.models.registry import get_architecture
    from facefeat_jax.reporting.table import results_table, timings_lines
    from facefeat_jax.runs.run_folder import CURVES, REPORT
    from facefeat_jax.system.distributed import is_first, member
    from facefeat_jax.system.runtime import start_up

    get_architecture(config.model.trunk)  # one that is not known is refused before anything is set up
    start_up()
    with member(config.processes.heartbeat_s) if config.processes.distributed else contextlib.nullcontext():

        def announce(results: dict[str, Any]) -> None:
            with contextlib.suppress(OSError):  # where nobody reads it, the pages are written all the same
                show(*results_table(results, sequential=config.batches.schedule == "sequential").split("\n"))
                show(*timings_lines(results))
                if sys.stdout:
                    sys.stdout.flush()

        train(config, announce, decoding)
        if not is_first():
            return 0
    show(f"run:    {config.run}", f"report: {config.run / REPORT}", f"curves: {config.run / CURVES}")
    say(f"next: facefeat predict {shlex.quote(str(config.run))} IMAGE...")
    return 0


def check(config: TrainConfig) -> None:
    """Checks whatever can be checked before the slow imports.

    Raises:
      UserError: an option, the run folder, a data set or the file of the weights can't be used.
    """
    from facefeat_jax.config._effect import require_effect
    from facefeat_jax.data.builders import know
    from facefeat_jax.data.dataset import default_data_dir, require_prepared
    from facefeat_jax.runs.run_config import check_folder, read_config
    from facefeat_jax.tasks import get_task

    if config.resume:
        read_config(config.run)
    elif not config.processes.distributed:  # with several processes, the first may have made the folder already
        require_effect(config)
        check_folder(config)
    know(config.data.sources, config.data.data_dir or default_data_dir())
    for task in config.data.tasks:
        get_task(task)
    require_prepared(config.data.sources, config.data.data_dir or default_data_dir())
    if config.model.weights_are_a_file and not Path(config.model.weights).exists():
        raise UserError(f"can't read weights from {config.model.weights}: there is no such file; check the path")


def train(
    config: TrainConfig,
    announce: Callable[[dict[str, Any]], object] | None = None,
    decoding: DecodingProcess | None = None,
) -> dict[str, Any]:
    """Trains a model, evaluates it in full and writes the run folder, with calibration, report, model card and curves.

    The folder is held until all of it is written: another training in it is refused meanwhile.

    Args:
      config: what to do; `smoke` is applied here.
      announce: called with the results as soon as they are known, before the pages are written; of several processes,
        in the first.
      decoding: as in `loop.training`.

    Returns:
      What `results.json` holds; see `training.loop.Trained`.

    Raises:
      UserError: something in the config, the data or the weights can't be used, and nothing is trained; or a page can't
        be written.
      Interrupted: a signal came; the run can be resumed.
    """
    from facefeat_jax.system.distributed import is_first
    from facefeat_jax.training import loop

    with loop.training(config, decoding) as trained:
        if is_first():
            if announce is not None:
                announce(trained.results)
            # Only now: they load SciPy's statistics, scikit-learn and matplotlib, which nothing before needs.
            from facefeat_jax.evaluation.explain import Explainer
            from facefeat_jax.reporting._publish import publish_training
            from facefeat_jax.reporting.curves import write_curves

            publish_training(
                trained.config.run,
                logits=trained.logits,
                step=trained.results["steps"],
                training=trained.training,
                validation=trained.validation,
                explainer=Explainer(trained.model, trained.spec, trained.frozen),
                spec=trained.spec,
                sources=trained.config.data.sources,
                batch_size=trained.config.batches.batch_size,
            )
            write_curves(trained.config.run)
        return trained.results
