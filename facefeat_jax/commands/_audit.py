"""`facefeat audit`: looks at data, then writes the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from facefeat_jax.system.progress import say, show, show_json

if TYPE_CHECKING:
    from facefeat_jax.evaluation.audit import Audit


@dataclass(frozen=True)
class Arguments:
    """Looks for duplicate pictures, imbalance and, with a run, likely wrong labels.

    It writes a page with contact sheets and tables, and prints the counts.
    """

    target: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="RUN|DATASET")]]
    """Name of a prepared data set, or folder of a run to audit the data that it was trained on."""
    data_dir: Path | None = None
    """Folder of the prepared data sets. The default is the run's."""
    out: Path | None = None
    """Output folder. The default is audit/ in the run folder, or runs/audit-NAME."""
    json: bool = False
    """Print everything as JSON."""


def run(arguments: Arguments) -> int:
    """Audits a data set or a run and prints what was found; returns the exit code.

    Raises:
      UserError: as `audit`.
    """
    from facefeat_jax.runs.run_config import require_audit_target

    require_audit_target(arguments.target, arguments.data_dir)
    from facefeat_jax.system.runtime import start_up

    start_up()
    from facefeat_jax.reporting.table import audit_lines

    made, folder = audit(arguments.target, data_dir=arguments.data_dir, out=arguments.out)
    if arguments.json:
        show_json(made.to_json())
    else:
        show(*audit_lines(made))
    say(f"wrote {folder / 'audit.html'}")
    return 0


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
    from facefeat_jax.evaluation.audit import audit as look
    from facefeat_jax.reporting.audit_page import write_audit
    from facefeat_jax.runs.run_folder import AUDIT, CONFIG

    made = look(target, data_dir=data_dir)
    folder = out or (Path(target) / AUDIT if (Path(target) / CONFIG).is_file() else Path("runs") / f"audit-{target}")
    write_audit(made, folder)
    return made, folder
