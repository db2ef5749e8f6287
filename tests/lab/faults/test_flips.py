"""A short sample of the campaign that flips bits in the files of a run folder."""

from __future__ import annotations

import json
import shutil
import sys

from facefeat_jax.data import _drawn as drawn
from faults import flips


def test_a_flipped_bit_changes_no_answer_unsaid(trained_run, tmp_path, monkeypatch, capsys):
    for name in ("TRAIN_SIZE", "VAL_SIZE"):
        monkeypatch.setattr(drawn, name, getattr(drawn, name))  # the campaign sets them
    shutil.copytree(trained_run, tmp_path / "run")
    flips.main(tmp_path, 8, 11, seed=4)
    cases = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [case["failure"] for case in cases] == ["", "", ""]


def test_other_answers_count_unless_a_line_says_whose_they_are(capsys):
    def unsaid() -> str:
        return "before"

    def told() -> str:
        print("checkpoint 12 is damaged: using the previous one, of step 6", file=sys.stderr)
        return "before"

    assert "other answers" in flips._tried(unsaid, "good", "before")
    assert flips._tried(told, "good", "before") == ""
    assert "other answers" in flips._tried(told, "good", "another")
