"""A benchmark that is cut off: what it had found can be read."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarking.journal import ROUNDS, Journal, finished, read_journal
from benchmarking.report import read, report
from facefeat_jax.system.errors import UserError


def test_every_cut_leaves_the_rounds_before_it(tmp_path, made_up):
    journal = Journal(tmp_path / ROUNDS)
    cases = made_up.pop("cases")
    journal.write("begin", results=made_up)
    for number, case in enumerate(case for case in cases if case["stage"] in ("matmul", "step")):
        entries = {name: {**entry, "rounds": []} for name, entry in case["entries"].items()}
        journal.write("case", case={**case, "entries": entries})
        for name, entry in case["entries"].items():
            for found in entry["rounds"]:
                journal.write("round", entry=name, found=found)
        if number == 0:
            journal.write("done")
    whole = (tmp_path / ROUNDS).read_bytes()
    assert all({"time", "elapsed"} <= json.loads(line).keys() for line in whole.splitlines())
    first = whole.index(b"\n") + 1  # what is measured and on what
    for cut in range(first, len(whole) + 1, 97):
        (tmp_path / ROUNDS).write_bytes(whole[:cut])
        results = read(tmp_path / ROUNDS)
        rounds = [one for case in results["cases"] for entry in case["entries"].values() for one in entry["rounds"]]
        assert len(rounds) == whole[:cut].count(b'"what": "round"') - (
            b'"what": "round"' in whole[:cut].split(b"\n")[-1]
        )
        report([results])
    assert finished(results) == {cases[0]["name"]}
    (tmp_path / ROUNDS).write_bytes(b"no JSON\n")
    with pytest.raises(UserError, match=r"rounds\.jsonl"):
        read(tmp_path / ROUNDS)


@pytest.mark.slow
def test_the_plan_of_a_gpu_killed_ten_times(tmp_path):
    """The rehearsal, killed at random seconds; the pictures of the first are used again."""
    root, dice = Path(__file__).resolve().parents[3], random.Random(14)
    for number in range(10):
        out, seconds = tmp_path / str(number), dice.uniform(20, 150)
        command = [sys.executable, str(root / "scripts/benchmark.py"), "run", "--plan", "rehearsal", "--out", str(out)]
        made = ["--made", str(tmp_path / "made")] if number else []
        child = subprocess.Popen([*command, *made], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=root)
        time.sleep(seconds)
        child.send_signal(signal.SIGKILL)
        child.wait()
        if not (out / ROUNDS).exists():
            print(f"{seconds:.0f} s: before the first line")
            continue
        results = read_journal(out / ROUNDS)
        rounds = [one for case in results["cases"] for entry in case["entries"].values() for one in entry["rounds"]]
        lines = (out / ROUNDS).read_bytes().count(b'"what": "round"')
        print(f"{seconds:.0f} s: {len(rounds)} rounds of {lines} lines, {len(finished(results))} cases finished")
        assert len(rounds) >= lines - 1 and (not rounds or report([results]))
