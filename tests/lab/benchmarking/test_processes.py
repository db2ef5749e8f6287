"""Workers: what they answer, and how they end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from benchmarking import run as run_module
from benchmarking.cases import Case, Entry
from benchmarking.journal import ROUNDS, read_journal
from benchmarking.processes import Side, SideError, Worker, run_command
from benchmarking.workplace import Workplace

FAKE = Side("fake", "Fake", "fake_side", (), settings={"pictures": 5}, path=(Path(__file__).parent,))


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_answers_and_leaves(tmp_path):
    with Worker(FAKE, {"FACEFEAT_CACHE": "here"}, tmp_path / "log") as worker:
        about = worker.open("count", {"pictures": 1}, timeout=60)
        assert _is_running(about["process"])
        first, second = (worker.round(timeout=60) for _ in range(2))
        assert (first["images"], second["images"]) == (5, 10)  # the side's settings come before the case's
        assert first["cache"] == "here" and first["seconds"] >= 0
        closed = worker.close(timeout=60)
        assert closed["rounds"] == 2 and closed["peak_resident_bytes"] > 2**20
    assert not _is_running(about["process"])
    assert "libraries print" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("operation", "said"),
    [("refuse", "no such thing here"), ("die", "exit code 7"), ("unheard", "no operation 'unheard'")],
)
def test_what_a_side_cannot_do_is_one_line(tmp_path, operation, said):
    with Worker(FAKE, {}, tmp_path / "log") as worker, pytest.raises(SideError, match=said):
        worker.open(operation, {}, timeout=60)


def test_a_fault_of_a_side_leaves_its_traceback_in_the_log(tmp_path):
    with Worker(FAKE, {}, tmp_path / "log") as worker:
        worker.open("fail", {}, timeout=60)
        with pytest.raises(SideError, match="ZeroDivisionError"):
            worker.round(timeout=60)
    assert "Traceback" in (tmp_path / "log").read_text()


def test_a_worker_that_hangs_is_ended(tmp_path):
    worker = Worker(FAKE, {}, tmp_path / "log")
    with pytest.raises(SideError, match="no answer within"):
        worker.open("hang", {}, timeout=2)
    with pytest.raises(SideError, match="exit code -9"):
        worker.round(timeout=2)


def test_a_side_that_is_absent_says_why(tmp_path):
    with pytest.raises(SideError, match="torch not installed"):
        Worker(Side("x", "X", "fake_side", (), absent="torch not installed"), {}, tmp_path / "log")


def test_a_command_that_fails_gives_its_last_line(tmp_path):
    printed, seconds = run_command(["-c", "print(6 * 7)"], {}, tmp_path / "log", timeout=60)
    assert printed == "42\n" and seconds > 0
    with pytest.raises(SideError, match=r"^last words$"):
        run_command(["-c", "raise SystemExit('first\\nlast words')"], {}, tmp_path / "log", timeout=60)


def _benchmark(tmp_path: Path, *sides: Side) -> run_module._Benchmark:
    place = Workplace(tmp_path / "work")
    place.make()
    by_name = {side.name: side for side in sides}
    return run_module._Benchmark(run_module.Request(out=tmp_path), place, by_name, ("step",))


def _measured(benchmark: run_module._Benchmark, case: Case) -> dict[str, Any]:
    """Returns the entries of a case as the file of rounds has them."""
    benchmark._measure(case, None)
    assert read_journal(benchmark._request.out / ROUNDS) == benchmark._journal.results
    return benchmark._journal.results["cases"][-1]["entries"]


def test_cases_of_a_group_share_processes_and_a_failing_side_is_noted(tmp_path):
    benchmark = _benchmark(tmp_path, FAKE)

    def case(name: str, operation: str, group: str) -> Case:
        entries = {"one": Entry("fake"), "other": Entry("fake")}
        return Case(name, operation, {"pictures": 1}, entries, rounds=2, group=group)

    first, second, third, failed = (
        _measured(benchmark, case(*words))
        for words in (("a", "count", "g"), ("b", "count", "g"), ("c", "count", "h"), ("d", "refuse", ""))
    )
    processes = [case["one"]["about"]["process"] for case in (first, second, third)]
    assert processes[0] == processes[1] != processes[2]
    assert first["one"]["about"]["process"] != first["other"]["about"]["process"]
    assert [one["images"] for one in second["other"]["rounds"]] == [5, 10]
    assert failed["one"] == {"side": "fake", "settings": {}, "rounds": [], "error": "no such thing here"}
    assert not benchmark._workers
    assert not any(map(_is_running, processes))


@pytest.mark.parametrize("keep", [False, True])
def test_a_fresh_round_has_a_process_and_caches_of_its_own(tmp_path, keep):
    benchmark = _benchmark(tmp_path, FAKE)
    entries = {"first": Entry("fake"), "second": Entry("fake")}
    case = Case("x", "count", {}, entries, rounds=2, fresh=True, keep_caches=keep)
    found = _measured(benchmark, case)
    rounds = [one for entry in found.values() for one in entry["rounds"]]
    assert len({one["process"] for one in rounds}) == 4
    assert all(one["wall_seconds"] > one["seconds"] and one["images"] == 5 for one in rounds)
    # Of one round, first and second share a cache or not; of different rounds, never.
    caches = {name: [one["cache"] for one in entry["rounds"]] for name, entry in found.items()}
    assert (caches["first"] == caches["second"]) is keep
    assert len(set(caches["first"])) == 2
    assert not any(Path(path).exists() for of in caches.values() for path in of)
