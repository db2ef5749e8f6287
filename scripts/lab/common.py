"""What the programs of the laboratory share: command lines, files of results, pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import tyro

from facefeat_jax.runs.run_folder import write_file, write_json
from facefeat_jax.system.errors import UserError


def run_command_line(commands: Any, about: str | None) -> int:
    """Parses the command line into one of some dataclasses, or the only one, and calls its `run`."""
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)
    return tyro.cli(commands, description=about, config=config).run()


def write_measured(options: Any, about: str | None, measure: Callable[[Any], Any], page: Callable[[Any], str]) -> None:
    """Parses the command line, measures, and writes the page of the results beside them, at the option `to`.

    Args:
      options: the dataclass of the options.
      about: what `--help` says.
      measure: returns the results.
      page: returns them as Markdown.
    """
    given = tyro.cli(options, description=about)
    results = measure(given)
    write_results(page(results), results, given.to)


def read_results(path: Path, of: str, keys: Collection[str], format: int | None = None) -> dict[str, Any]:
    """Reads a JSON file of results.

    Args:
      path: the file.
      of: what writes such files, for messages.
      keys: what has to be in it.
      format: the value of its `format`; None for files without one.

    Raises:
      UserError: it is not such a file, or one of another version.
    """
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}); give the JSON file of {of}") from error
    if not isinstance(results, dict) or not set(keys) <= set(results):
        raise UserError(f"{path} holds no results of {of}; give the JSON file that it wrote")
    if format is not None and results.get("format") != format:
        raise UserError(f"{path} has format {results.get('format')}, this version reads {format}; measure again")
    return results


def write_page(lines: Sequence[str], out: Path | None) -> None:
    """Writes a page of Markdown, or prints it where `out` is None."""
    text = "\n".join(lines) + "\n"
    if out is None:
        print(text, end="")
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")


def write_results(page: str, results: dict[str, Any], out: Path | None) -> None:
    """Writes a page and, under the same name, the results that it was made of as JSON; without `out` nothing."""
    if out:
        write_json(out.with_suffix(".json"), results)
        write_file(out, page.encode())
