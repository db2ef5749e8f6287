"""What the programs of the laboratory share, and the pages in docs/ that they made of stored results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import common
import measure_audit
import measure_crops
import measure_unlike
from benchmarking import report as benchmark_report
from facefeat_jax.system import environment
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.markdown import table
from faults import report as faults_report
from faults.campaigns import CAMPAIGNS
from parity import whole_job_report
from recipe_comparison import report as recipes_report

ROOT = Path(common.__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def _stored(name: str):
    return json.loads((DOCS / "benchmarks" / name).read_text(encoding="utf-8"))


def _reliability() -> str:
    results = [faults_report.read(DOCS / "benchmarks" / "faults" / f"{name}.json") for name in CAMPAIGNS]
    return "\n".join(faults_report.report(results)) + "\n"


@pytest.mark.parametrize(
    ("page", "make"),
    [
        ("reliability.md", _reliability),
        ("benchmarks/crops.md", lambda: measure_crops.page(_stored("crops.json"))),
        ("benchmarks/unlike.md", lambda: measure_unlike.page(_stored("unlike.json"))),
        ("benchmarks/flipped_labels.md", lambda: measure_audit.page(_stored("flipped_labels.json"))),
        ("benchmarks/recipes.md", lambda: recipes_report.page(_stored("recipes.json"))),
        ("benchmarks/whole_job.md", lambda: whole_job_report.report(_stored("whole_job.json"))),
    ],
)
def test_a_page_is_what_its_stored_results_make(page, make):
    """All of it, or for the whole job the part that is not written by hand."""
    text = (DOCS / page).read_text(encoding="utf-8")
    assert make() in text and ("whole_job" in page or make() == text)


def test_stored_measurements_of_speed_still_make_a_page():
    files = sorted((DOCS / "benchmarks" / "speed").glob("*.json"))
    lines = benchmark_report.report([benchmark_report.read(path) for path in files])
    assert files and sum(line.startswith("- ") and "scripts/benchmark.py run" in line for line in lines) == len(files)


def test_tables_sizes_and_versions_are_written_in_one_place():
    folders = [ROOT / name for name in ("facefeat_jax", "weights_conversion", "scripts")]
    sources = {str(path.relative_to(ROOT)): path.read_text() for folder in folders for path in folder.rglob("*.py")}

    def holding(pattern: str) -> set[str]:
        return {name for name, text in sources.items() if re.search(pattern, text)}

    yaml = {"facefeat_jax/reporting/_card_metadata.py"}  # the same mark opens a card's metadata
    assert holding(r"\"---:?\"|\| ---") - yaml == {"facefeat_jax/system/markdown.py"}
    assert holding(r"(/ ?2\*\*|>> ?)[23]0[^}\"]*\} ?[MG]iB") == set()  # sizes: `text.format_size`
    versions = r"python_version\(|metadata\.version\(|/proc/cpuinfo|rev-parse"
    assert holding(versions) == {"facefeat_jax/system/environment.py", "facefeat_jax/commands/_doctor.py"}


def test_results_say_what_they_were_made_with(monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_X64", "0")
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/somewhere/here")
    monkeypatch.setattr("sys.argv", ["x.py", "run", "--out", "/somewhere/results", "--note", "a `b`"])
    recorded = environment.record(environment.typed("python x.py"), ("numpy", "absent-package"), "CPU")
    assert set(recorded) == {"date", "command", "commit", "environment"}
    made, machine, variables = environment.record_lines({**recorded, "seconds": 1234.4})
    assert made.startswith("- 20") and " UTC, 1,234 s, commit " in made
    assert made.endswith("``python x.py run --out results --note 'a `b`'``")
    assert re.fullmatch(r"- \d+ cores? of .+, \d+ GiB, \S+ \S+, Python \S+, numpy \S+", machine)
    assert "`JAX_ENABLE_X64=0`" in variables and "somewhere" not in json.dumps(recorded)
    # What an earlier version wrote says less.
    older = {"processor": "P", "cores": 1, "python": "3", "versions": {"jax": "1"}}
    assert environment.line(older) == "1 core of P, Python 3, jax 1"


def test_figures_stand_on_the_right():
    assert table(["a", "b", "c"], [["x", "y|z", 1]], texts=2)[1:] == ["| --- | --- | ---: |", "| x | y\\|z | 1 |"]


def test_results_of_something_else_are_one_line(tmp_path):
    path = tmp_path / "x.json"
    for content, message in (
        (None, "can't be read"),
        ("{", "can't be read"),
        ("[]", "holds no results of a test"),
        ('{"a": 1}', "holds no results of a test"),
        ('{"a": 1, "b": 2, "format": 1}', "format 1, this version reads 2"),
    ):
        if content is not None:
            path.write_text(content)
        with pytest.raises(UserError, match=message) as caught:
            common.read_results(path, "a test", ("a", "b"), 2)
        assert "\n" not in str(caught.value)


def test_a_page_is_written_or_printed(tmp_path, capsys):
    common.write_page(["a", "b"], tmp_path / "new" / "page.md")
    common.write_page(["a", "b"], None)
    assert (tmp_path / "new" / "page.md").read_text() == capsys.readouterr().out == "a\nb\n"
