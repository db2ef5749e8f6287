"""The notebook runs from its first cell to its last, and is what its script makes."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from facefeat_jax.runs.run_folder import REPORT, RESULTS

pytestmark = pytest.mark.docs

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "docs" / "notebook.py"
NOTEBOOK = ROOT / "docs" / "facefeat_jax.ipynb"

# Draws a few pictures instead of thousands, then runs the script as a notebook would run it: not from a file, since the
# processes that draw start from the main program's file.
DRIVER = """
import sys
from facefeat_jax.data import _drawn as drawn
drawn.TRAIN_SIZE, drawn.VAL_SIZE = 64, 32
exec(compile(open(sys.argv[1], encoding="utf-8").read(), sys.argv[1], "exec"), {"__name__": "__main__"})
"""


@pytest.fixture(scope="module")
def notebook() -> dict:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def cells_of_script() -> list[tuple[str, str]]:
    """Returns kind and text of each cell of the script, read by the rules of the percent format."""
    _, *cells = re.split(r"^# %%", SCRIPT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    read = []
    for cell in cells:
        mark, _, text = cell.partition("\n")
        if mark.strip() == "[markdown]":
            read.append(("markdown", re.sub(r"^# ?", "", text.strip(), flags=re.MULTILINE)))
        else:
            read.append(("code", text.strip()))
    return read


def test_notebook_is_what_its_script_makes(notebook: dict) -> None:
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]] == cells_of_script(), (
        "docs/notebook.py was changed: make notebook"
    )


@pytest.mark.skipif(importlib.util.find_spec("jupytext") is None, reason="jupytext is not installed (extra: notebook)")
def test_builder_finds_nothing_to_do() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "build_notebook.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_notebook_is_kept_without_outputs(notebook: dict) -> None:
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) > 8
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)


def test_notebook_says_what_it_is_first(notebook: dict) -> None:
    first, *_ = notebook["cells"]
    assert first["cell_type"] == "markdown" and first["source"][0].startswith("# ")
    installs = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    assert "find_spec" in "".join(installs["source"])


@pytest.mark.slow
def test_notebook_runs(tmp_path: Path) -> None:
    environment = {**os.environ, "FACEFEAT_SMOKE": "1", "MPLBACKEND": "Agg", "FACEFEAT_CACHE": str(tmp_path / "cache")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        # A warning of matplotlib's is all that a figure that can't be laid out would give.
        [sys.executable, "-W", "error::UserWarning:matplotlib", "-c", DRIVER, str(SCRIPT)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    folder = tmp_path / "facefeat_notebook"
    heads = json.loads((folder / "run" / RESULTS).read_text())["heads"]
    assert list(heads) == ["gender", "glasses", "shirt"]
    assert all(0 <= figures["accuracy"] <= 1 and figures["n"] == 32 for figures in heads.values())
    page = (folder / "run" / REPORT).read_text(encoding="utf-8")
    assert page.count("<img ") >= 24  # samples; how many answers are shown depends on them
    assert re.search(r"^head +accuracy +loss +pictures$", done.stdout, re.MULTILINE)
    assert len(re.findall(r"^gender: (?:fe)?male [01]\.\d{3}  glasses: ", done.stdout, re.MULTILINE)) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "facefeat_notebook"]
