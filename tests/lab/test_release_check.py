"""The release check, over a stand-in for the `facefeat` command."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace

import psutil
import pytest

import release_check
from release_check import Options

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="commands are held on cores as Linux does")

# Says on which cores it ran; `predict` answers each picture, `audit` aborts where a file says so.
_FACEFEAT = """
import os, sys
from pathlib import Path
here = Path(sys.argv[1])
words = sys.argv[2:]
with (here / "ran").open("a") as ran:
    print(len(os.sched_getaffinity(0)), " ".join(words[:2]), file=ran)
if words[0] == "predict":
    names = sys.stdin.read().splitlines()
    assert all(Path(name).stat().st_size for name in names)
    lost = (here / "loses").exists()
    Path(words[words.index("--out") + 1]).write_text("{}\\n" * (len(names) - lost))
if words[0] == "audit" and (here / "aborts").exists():
    print("lost a thread", file=sys.stderr)
    os.abort()
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the check on stand-ins and returns the exit code, the JSON and the page."""
    monkeypatch.setattr(release_check, "_DRAWN", 2)
    options = Options(out=tmp_path / "out" / "check", repeat=3, pictures=5)

    def run(**changes):
        monkeypatch.setattr(
            release_check.processes, "facefeat", lambda: [sys.executable, "-c", _FACEFEAT, str(tmp_path)]
        )
        monkeypatch.setattr(release_check.tyro, "cli", lambda *_, **__: replace(options, **changes))
        code = release_check.main()
        return code, json.loads((tmp_path / "out/check.json").read_text()), (tmp_path / "out/check.md").read_text()

    return run


def _loops() -> list[psutil.Process]:
    """Returns the busy loops of this process; tests that ran in it before may have left it other children."""
    return [child for child in psutil.Process().children() if child.name() == "sh"]


def test_every_command_runs_on_few_and_all_cores_quiet_and_busy(run, tmp_path):
    code, result, page = run()
    every = len(os.sched_getaffinity(0))
    assert code == 0 and "0 failed" in page
    counted = {(row["name"], row["cores"], row["busy"]): len(row["runs"]) for row in result["rows"]}
    counts = {1, min(2, every), every}
    assert len(counted) == 7 * 2 * len(counts) and {cores for _, cores, _ in counted} == counts
    assert counted["audit", every, False] == 1 and counted["train fast", every, True] == 2
    assert {int(line.split()[0]) for line in (tmp_path / "ran").read_text().splitlines()} == counts
    assert "`facefeat train avatars --data-dir data --run runs/avatars --overwrite`" in page
    assert str(tmp_path) not in json.dumps(result["rows"]) and not _loops()


def test_what_is_repeated_alone(run, tmp_path):
    _, result, _ = run(only_repeated=True, repeat=4)
    counted = [(row["name"], row["busy"], len(row["runs"])) for row in result["rows"]]
    assert [one for one in counted if one[1]] == [
        ("train fast", True, 2),
        ("audit", True, 2),
        ("audit, two CPU devices", True, 2),
    ]
    assert [one[2] for one in counted if not one[1]] == [1, 1, 2, 1, 1, 2, 2]


def test_an_abort_is_counted_and_the_rest_still_runs(run, tmp_path):
    (tmp_path / "aborts").touch()
    code, result, page = run(only_repeated=True, repeat=2)
    assert code == 1 and len(result["rows"]) == 10
    assert "| -6 x1 |" in page and "failed: audit: exit code -6: lost a thread" in page


def test_a_picture_without_an_answer_is_a_failure(run, tmp_path):
    (tmp_path / "loses").touch()
    code, _, page = run(only_repeated=True, repeat=2)
    assert code == 1 and "predict: 4 answers, and not one for each picture" in page


def test_finished_runs_are_on_disk_when_the_check_ends_early(run, tmp_path, monkeypatch):
    real, done = release_check._run, []

    def stops(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(release_check, "_run", stops)
    with pytest.raises(KeyboardInterrupt):
        run()
    rows = json.loads((tmp_path / "out/check.json").read_text())["rows"]
    assert [len(row["runs"]) for row in rows] == [1, 1]


def test_busy_loops_end_with_what_they_disturb():
    with pytest.raises(RuntimeError), release_check.busy_loops([], 2):
        assert len(_loops()) == 2
        raise RuntimeError
    assert not _loops()
