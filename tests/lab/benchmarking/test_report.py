"""The tables and the verdicts, from made-up results."""

from __future__ import annotations

import json

import pytest

from benchmarking import targets
from benchmarking.cases import PLANS, STAGES, cases
from benchmarking.figures import Figures, whole_job_seconds
from benchmarking.report import read, report
from facefeat_jax.system.errors import UserError


def _row(text: str, *beginnings: str) -> list[str]:
    """Returns the cells of the only row of a table that begins so."""
    (line,) = (line for line in text.splitlines() if line.startswith("| " + " | ".join(beginnings)))
    return [cell.strip() for cell in line.strip("|").split("|")]


def _page(made_up: dict) -> str:
    return "\n".join(report([made_up]))


def _verdict(made_up: dict, what: str, where: str = "") -> list[str]:
    lines = targets.table([Figures(made_up)])
    (line,) = (line for line in lines if line.startswith(f"| {what}") and where in line)
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_what_was_not_done_is_reckoned_at_the_speed_of_what_was():
    done = {"wall_seconds": 23.0, "epoch_seconds": [20.0], "share": 1.0}
    assert whole_job_seconds(done, 1) == 23.0
    assert whole_job_seconds(done, 5) == 3 + 5 * 20
    assert whole_job_seconds({**done, "share": 0.5}, 5) == 3 + 5 * 20 / 0.5
    # The first epoch also warms up; the missing ones are like the later ones.
    assert whole_job_seconds({"wall_seconds": 45.0, "epoch_seconds": [25.0, 10.0], "share": 1.0}, 4) == 10 + 25 + 30


def test_the_job_is_compared_from_files_to_table(made_up):
    *_, required, measured, verdict, how = _verdict(made_up, "baseline-sized job, files to table")
    # Ours: 26 s and 4 s of prepare; theirs: 3 s and 5 epochs of 20 s for half of the pictures.
    assert (required, measured, verdict) == ("at least 2×", f"{203 / 30:.2f}×", "reached")
    assert "30.0 s, 4.0 s of them `prepare`, against 203.0 s (reckoned)" in how
    assert _verdict(made_up, "the same, heads only")[3] == "not measured"


def test_a_figure_that_is_short_says_by_how_much(made_up):
    *_, measured, verdict, how = _verdict(made_up, "step, layer4 and heads trained, batch 32, float32")
    assert measured == "0.75× (0.75 to 0.75)"  # round by round, though the rounds differ by a tenth
    assert verdict == "**not reached**, by a factor of 1.333"
    assert how == "30 against 40 images/s"


def test_rounding_does_not_contradict_the_verdict(made_up):
    (job,) = (case for case in made_up["cases"] if case["name"] == "job/layer4")
    for entry in job["entries"]["ours"]["rounds"]:
        entry["wall_seconds"] = 203 / 1.998 - 4
    *_, measured, verdict, _ = _verdict(made_up, "baseline-sized job, files to table")
    assert (measured, verdict) == ("1.9980×", "**not reached**, by a factor of 1.001")


def test_several_cpu_devices_count_for_no_target(made_up):
    made_up["environment"]["variables"] = {"JAX_NUM_CPU_DEVICES": "2"}
    assert {line.split(" | ")[3] for line in targets.table([Figures(made_up)])[2:]} == {"not measured"}


def test_the_faster_of_theirs_counts(made_up):
    assert _verdict(made_up, "forward, batch 1,")[3:5] == ["1.50×", "reached"]


def test_most_is_the_other_way_round(made_up):
    assert _verdict(made_up, "host memory")[2:5] == ["at most 1.1×", "1.05×", "reached"]
    assert _verdict(made_up, "second start", "| CPU |")[3:5] == ["0.12×", "reached"]
    made_up["cases"][-1]["entries"]["100,000 pictures"]["rounds"][0]["feed_anonymous_bytes"] *= 2
    assert _verdict(made_up, "host memory")[4] == "**not reached**, by a factor of 1.909"


def test_another_device_and_a_rehearsal_don_t_count(made_up):
    assert _verdict(made_up, "second start", "| GPU |")[3] == "not measured"
    made_up["plan"] = "quick"
    assert all("| not measured |" in line for line in targets.table([Figures(made_up)])[2:])
    assert "only show that everything works" in _page(made_up)


def test_a_part_of_the_pictures_is_not_the_baseline_sized_job(made_up):
    made_up["device"] = "gpu"
    for what in ("baseline-sized job against PyTorch as written", "baseline-sized job, cold start"):
        assert _verdict(made_up, what)[3] == "not measured"
    made_up["data"] |= {"kind": "synthetic", "fraction": 1.0}
    assert _verdict(made_up, "baseline-sized job against PyTorch as written")[3] == f"{203 / 30:.2f}×"
    assert _verdict(made_up, "baseline-sized job against PyTorch tuned")[3] == f"{65 / 30:.2f}×"
    assert _verdict(made_up, "baseline-sized job, cold start")[3:5] == ["30.00 s", "reached"]


def test_each_side_at_its_own_best_batch(made_up):
    made_up["device"] = "gpu"
    step = next(case for case in made_up["cases"] if case["stage"] == "step")
    made_up["cases"] = []
    for batch, ours, theirs in ((32, 10.0, 8.0), (256, 24.0, 30.0), (1024, 36.0, 20.0)):
        case = json.loads(json.dumps(step)) | {"name": f"step/layer4/bf16/{batch}"}
        for name, rate in (("ours", ours), ("compiled", theirs)):
            case["entries"][name] = step["entries"]["ours"] | {"rounds": [{"seconds": 1.0, "images": rate}]}
        made_up["cases"].append(case)
    *_, measured, verdict, how = _verdict(made_up, "step, layer4 and heads trained, bf16")
    assert (measured, verdict) == ("1.20×", "reached")
    assert how == "36 images/s at batch 1024 against 30 at batch 256"


def test_the_later_of_two_runs_counts(made_up):
    later = json.loads(json.dumps(made_up))
    (start,) = (case for case in later["cases"] if case["stage"] == "start")
    start["entries"]["second"]["rounds"][0]["compile_seconds"] = 4.0
    later["cases"] = [start]
    lines = targets.table([Figures(made_up), Figures(later)])
    (line,) = (line for line in lines if line.startswith("| second start") and "| CPU |" in line)
    assert "0.50×" in line
    assert any("1.05×" in line for line in lines)  # what only the earlier one has stays


def test_the_report_shows_every_stage(made_up):
    text = _page(made_up)
    assert "2 cores of Abacus" in text and "torch 2.13.0" in text and "commit abc" in text
    # 30 images/s at 5e9 operations each are 0.15 TFLOP/s; the best product reached 4e11 in 2 s.
    ours = _row(text, "layer4 and heads", "float32", "32", "facefeat_jax")
    assert ours[4:8] == ["30 (27 to 33)", "", "0.15 (0.135 to 0.165)", "75%"]
    tuned = _row(text, "layer4 and heads", "float32", "32", "PyTorch tuned")
    assert tuned[4:8] == ["40 (36 to 44)", "0.75 (0.75 to 0.75)×", "0.2 (0.18 to 0.22)", "100%"]
    assert "RuntimeError: no compiler" in _row(text, "layer4 and heads", "float32", "32", "PyTorch compiled")[4]
    job = _row(text, "layer4 and heads", "facefeat_jax, recipe `fast`")
    assert job[2:6] == ["30 s", "", "4.0 s", "26 s (5 of 5 epochs)"]
    written = _row(text, "layer4 and heads", "PyTorch as written", "203 s")
    assert written[2:6] == ["203 s (reckoned)", "6.77×", "", "23 s (1 of 5 epochs, 0.5 of the pictures)"]
    assert _row(text, "fast, second")[1:3] == ["13 s", "1 s"]
    assert _row(text, "100,000 pictures")[1] == "210 MiB"


def test_other_work_on_the_machine_is_said(made_up):
    assert "not a quiet machine" not in _page(made_up)
    made_up["cases"][0]["busy_cores"] = 1.4
    assert "up to 1.4 of 2 cores" in _page(made_up)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}', None])
def test_a_file_that_holds_no_results_is_one_line(tmp_path, content):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"x\.json"):
        read(path)


def test_results_of_another_format_are_refused(tmp_path, made_up):
    (tmp_path / "x.json").write_text(json.dumps(made_up))
    assert read(tmp_path / "x.json") == made_up
    (tmp_path / "x.json").write_text(json.dumps(made_up | {"format": 0}))
    with pytest.raises(UserError, match="measure again"):
        read(tmp_path / "x.json")


@pytest.mark.parametrize("plan", PLANS)
def test_plans_cover_every_stage_and_the_figures_to_reach_find_their_cases(plan):
    everybody = ("ours", "pytorch", "tuned", "compiled")
    planned = {case.name: case for case in cases(PLANS[plan], 2, everybody, STAGES)}
    assert {case.stage for case in planned.values()} == set(STAGES)
    wanted = {
        "cpu": ["job/layer4", "job/heads", "step/layer4/float32/32", "step/all/float32/32", "forward/float32/1"],
        "cpu-job": ["job/layer4", "job/heads"],
        "gpu": ["job/layer4", "step/layer4/bf16/1024", "step/all/bf16/256"],
        "rehearsal": [],
        "quick": [],
    }[plan]
    assert set(wanted) <= set(planned)
    for name in wanted:
        assert {"ours", "tuned"} & set(planned[name].entries), name
    assert ("compiled" in planned["job/layer4"].entries) is (plan == "gpu")
    alone = cases(PLANS[plan], 2, ("ours",), STAGES)
    assert {entry.side for case in alone for entry in case.entries.values()} == {"ours"}


def test_a_stage_or_case_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="no case begins with job/head/; there are job/layer4, job/heads"):
        cases(PLANS["cpu"], 2, ["ours"], ["job"], ["job/heads", "job/head/"])
    chosen = cases(PLANS["cpu"], 2, ["ours"], ["job", "step"], ["job/heads", "step/all"])
    assert [case.name for case in chosen] == ["job/heads", "step/all/float32/32"]
    with pytest.raises(UserError, match="no stage steps; there are matmul, decode"):
        cases(PLANS["quick"], 1, ("ours",), ("steps",))
