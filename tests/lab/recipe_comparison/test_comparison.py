"""The comparison of recipes: rows that differ in what they say they do, trained once, and tables of what there is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from facefeat_jax.config import load_recipe
from facefeat_jax.runs.run_folder import open_run
from facefeat_jax.system.errors import UserError
from recipe_comparison import rows as rows_module
from recipe_comparison.plan import FINE_TUNING, INGREDIENTS, Row, Size, ablation, best_fields, seeds
from recipe_comparison.report import page, read_rows, write_page
from recipe_comparison.rows import calibration_error, run_row

pytestmark = pytest.mark.long

SIZE = Size(64, 6, None)


def test_all_rows_take_as_many_pictures_from_the_same_weights():
    for row in (*ablation(), *seeds(3)):
        config = row.config(SIZE, "random")
        batches = config.batches
        assert (config.model.weights, batches.epochs, batches.batch_size, config.seed) == ("random", 6, 32, row.seed)
        assert config.model.trainable == ("all",)
        assert config.data.disjoint == (() if row.name == "best, plain split" else ("identity",))
    assert len({row.key for row in (*ablation(), *seeds(3))}) == len(ablation()) + len(seeds(3))


def test_the_rows_are_the_recipes():
    by_name = {row.name: row.config(SIZE, "random") for row in seeds(1)}
    baseline, best = load_recipe("baseline"), load_recipe("best")
    apart = {"run", "recipe", "weights", "image_size", "epochs", "trainable", "dtype", "disjoint", "limit"}
    for name, recipe in (("baseline", baseline), ("best", best)):
        expected = recipe.flat()
        for field, value in by_name[name].flat().items():
            if field not in apart:
                assert value == expected[field], (name, field)
    assert by_name["mixed"].batches.schedule == "mixed"
    assert by_name["mixed"].optimizer.learning_rate == baseline.optimizer.learning_rate
    assert best_fields()["schedule"] == "mixed"


def test_an_ingredient_is_added_alone():
    rows = {row.name: row.fields for row in ablation()}
    for name, fields in (INGREDIENTS | FINE_TUNING).items():
        added = rows[f"with {name}"].items() - rows["mixed, schedule"].items()
        assert {field for field, _ in added} == set(fields), name


def test_the_calibration_error_is_the_gap_of_each_bin():
    probability = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.45, 0.55]])
    # Two of 0.9, one of them right; one of 0.8, right; one of 0.55, wrong.
    expected = (2 * abs(0.9 - 0.5) + 0.2 + 0.55) / 4
    assert calibration_error(probability, np.array([0, 1, 1, 0])) == pytest.approx(expected)
    assert calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0


@pytest.fixture
def tiny_row(tiny):
    class Tiny(Row):
        def config(self, size, weights):
            return tiny(Path("nowhere"), **self.fields)

    return Tiny("seeds", "best", 0, {})


def test_a_row_is_trained_once_and_its_figures_are_the_final_weights(tiny_row, avatars_dir, tmp_path, monkeypatch):
    found = run_row(tiny_row, SIZE, "random", avatars_dir, tmp_path)
    results = json.loads((tmp_path / "runs" / "seeds-best-0" / "results.json").read_text())
    for task, figures in found["heads"].items():
        assert figures["accuracy"] == pytest.approx(results["heads"][task]["accuracy"])
        assert figures["loss"] == pytest.approx(results["heads"][task]["loss"], rel=1e-5)
        assert 0 <= figures["calibration_error"] <= 1
    assert found["passes"] == 2 * 44
    assert found["pictures"]["train"] == {"gender": 44, "glasses": 44, "shirt": 44}
    assert "/" not in "".join(found["environment"]["variables"].values())
    assert open_run(tmp_path / "runs" / "seeds-best-0").step == 12
    assert str(tmp_path) not in (tmp_path / "rows" / "seeds-best-0.json").read_text()

    def never(config):
        raise AssertionError("trained again")

    monkeypatch.setattr(rows_module, "train", never)
    assert run_row(tiny_row, SIZE, "random", avatars_dir, tmp_path) == json.loads(json.dumps(found))


def fake(part, name, seed, accuracy, **fields):
    heads = {
        head: {"accuracy": accuracy + seed / 100, "loss": 1 - accuracy, "calibration_error": 0.1, "n": 400}
        for head in ("gender", "glasses", "shirt")
    }
    return {
        "part": part,
        "name": name,
        "seed": seed,
        "size": {"image_size": 64, "epochs": 6, "limit": None},
        "weights": "random",
        "fields": fields,
        "heads": heads,
        "history": [{"task": head, "accuracy": 0.9} for head in heads],
        "passes": 30000,
        "pictures": {"train": {"glasses": 1600 if "plain" in name else 1392}},
        "seconds": 90.0,
        "environment": {"processor": "P", "cores": 1, "devices": "cpu", "python": "3", "versions": {"jax": "1"}},
    }


def test_the_page_says_on_how_many_seeds_best_is_better(tmp_path):
    found = [fake("seeds", "baseline", seed, 0.8) for seed in range(2)]
    found += [fake("seeds", "best", 0, 0.9), fake("seeds", "best", 1, 0.7)]
    text = page(found)
    assert "| gender accuracy | 0.805 ± 0.007 | 0.805 ± 0.134 | 1 of 2 | 0.912 |" in text
    assert "gender on 0 of 2 seeds, glasses on 1 of 2 seeds, shirt on 1 of 2 seeds" in " ".join(text.split())
    assert "| sequential, seed 0 | 0.900 → 0.800 |" in text
    assert "seeds-baseline-2" in text.partition("Not measured yet")[2]
    assert "people in both splits\n\nNot measured yet" in text
    text = page([*found, fake("seeds", "best, plain split", 0, 0.95)])
    assert "208 of the 1,600 training pictures" in " ".join(text.split())
    assert "| glasses accuracy | 0.900 | 0.950 |" in text
    assert all(len(line) <= 120 or line.startswith("|") for line in text.splitlines())
    write_page(found, tmp_path / "recipes.md")
    assert json.loads((tmp_path / "recipes.json").read_text())[0]["name"] == "baseline"


def test_rows_that_can_not_be_compared_are_refused(tmp_path):
    (tmp_path / "rows").mkdir()
    with pytest.raises(UserError, match="holds no rows yet"):
        read_rows(tmp_path)
    for name, size in (("a", 64), ("b", 96)):
        row = fake("seeds", name, 0, 0.9)
        row["size"]["image_size"] = size
        (tmp_path / "rows" / f"{name}.json").write_text(json.dumps(row))
    with pytest.raises(UserError, match="differ in size or weights"):
        read_rows(tmp_path)
