"""`compare_answers.py`: what differs between the answers of commands for the same pictures."""

from __future__ import annotations

import json

import compare_answers


def line(file: str, label: str, probability: float, **more) -> str:
    other = {"male": "female", "female": "male"}[label]
    head = {"label": label, "probability": probability, "unsure": False, **more}
    head["probabilities"] = {label: probability, other: 1 - probability}
    return json.dumps({"file": file, "heads": {"gender": head}})


def test_labels_unsure_and_the_largest_difference_are_counted(tmp_path) -> None:
    bad = json.dumps({"file": "bad.png", "error": "no picture"})
    first = [line("a.png", "male", 0.9), line("b.png", "female", 0.8), bad]
    second = [line("b.png", "male", 0.6, unsure=True), line("a.png", "male", 0.91), bad]  # in another order
    (tmp_path / "one.jsonl").write_text("\n".join(first))
    (tmp_path / "two.jsonl").write_text("\n".join(second))
    (tmp_path / "pictures.txt").write_text("a.png\nb.png\nbad.png\n")
    by = [f"first={tmp_path / 'one.jsonl'}", f"second={tmp_path / 'two.jsonl'}"]
    by.append(f"third=cp {tmp_path / 'one.jsonl'} {{}}")
    words = [word for one in by for word in ("--by", one)]
    compare_answers.main([str(tmp_path / "pictures.txt"), "--to", str(tmp_path / "page.md"), *words])
    page = (tmp_path / "page.md").read_text()
    assert "| second | gender | 2 | 50.00% | 1 | 1 | 0 | 4.0e-01 |" in page and str(tmp_path) not in page
    assert "| third | gender | 2 | 100.00% | 0 | 0 | 0 | 0.0e+00 |" in page
    assert json.loads((tmp_path / "page.json").read_text())["by"][2]["command"] == "cp one.jsonl {}"
