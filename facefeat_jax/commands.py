"""What commands do in several rooms, one after the other: training and then its pages, an audit and then its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facefeat_jax.config import TrainConfig
from facefeat_jax.evaluation.audit import Audit
from facefeat_jax.evaluation.audit import audit as look
from facefeat_jax.evaluation.explain import Explainer
from facefeat_jax.reporting._publish import publish_training
from facefeat_jax.reporting.audit_page import write_audit
from facefeat_jax.reporting.curves import write_curves
from facefeat_jax.runs.run_folder import AUDIT, CONFIG
from facefeat_jax.system.distributed import is_first
from facefeat_jax.training import loop

__all__ = ["audit", "train"]


def train(config: TrainConfig) -> dict[str, Any]:
    """Trains a model, evaluates it in full and writes the run folder, with calibration, report, model card and curves.

    Args:
      config: what to do; `smoke` is applied here.

    Returns:
      What `results.json` holds; see `training.loop.Trained`.

    Raises:
      UserError: something in the config, the data or the weights can't be used, and nothing is trained; or a page can't
        be written.
      Interrupted: a signal came; the run can be resumed.
    """
    trained = loop.train(config)
    if is_first():
        run = trained.config.run
        publish_training(
            run,
            logits=trained.logits,
            step=trained.results["steps"],
            training=trained.training,
            validation=trained.validation,
            explainer=Explainer(trained.model, trained.spec, trained.frozen),
            spec=trained.spec,
            sources=trained.config.data.sources,
            batch_size=trained.config.batches.batch_size,
        )
        write_curves(run)
    return trained.results


def audit(target: str, *, data_dir: Path | None = None, out: Path | None = None) -> tuple[Audit, Path]:
    """Looks at a prepared data set, or at a run and the data that it was trained on, and writes the page.

    Args:
      target: name of a data set, or a run folder.
      data_dir: where prepared data sets lie; the default is the run's, else the usual place.
      out: folder for what is found; the default is `audit/` in the run folder, or `runs/audit-NAME`.

    Returns:
      What was found, and the folder: `audit.html` with contact sheets, `audit.json`, `duplicates.csv`, and with a run
      `highest_loss.csv`.

    Raises:
      UserError: there is no such data set or run, data are not prepared, or a file can't be written.
    """
    made = look(target, data_dir=data_dir)
    folder = out or (Path(target) / AUDIT if (Path(target) / CONFIG).is_file() else Path("runs") / f"audit-{target}")
    write_audit(made, folder)
    return made, folder
