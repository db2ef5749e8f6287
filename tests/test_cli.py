"""The `facefeat` command: exit codes, one clear line for bad input, JSON answers."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from facefeat_jax import __version__
from facefeat_jax.cli import COMMANDS, main
from facefeat_jax.commands._options import options_of
from facefeat_jax.config import TrainConfig, list_recipes, load_recipe


def said(capsys, *argv) -> tuple[int, str]:
    """Returns exit code and standard error of a call that must say one line and nothing else."""
    code = main([str(part) for part in argv])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("facefeat: ")
    assert len(captured.err.splitlines()) == 1
    return code, captured.err


def test_wrong_calls_are_answered_with_one_line_that_says_what_to_do(capsys, tmp_path, trained_run, avatars_dir):
    (tmp_path / "not_a_run").mkdir()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text("{")
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "config.json").write_text("[]")
    (tmp_path / "hollow" / "checkpoints" / "7").mkdir(parents=True)
    (tmp_path / "hollow" / "config.json").write_bytes((trained_run / "config.json").read_bytes())
    (tmp_path / "junk.pth").write_bytes(b"junk")
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    calls = {
        ("tarin",): "Did you mean 'train'",
        ("train",): "Recipes: avatars, baseline",
        ("train", "avatar"): "Did you mean 'avatars'",
        ("train", "baseline", "--run", tmp_path / "x", "--data-dir", tmp_path): "facefeat prepare fairface --from",
        ("train", "avatars", "--run", tmp_path / "x", "--data-dir", tmp_path): "facefeat prepare avatars",
        ("evaluate", tmp_path / "absent"): "there is no run folder",
        ("evaluate", tmp_path / "not_a_run"): "is not a run folder",
        ("evaluate", tmp_path / "half"): "can't be read",
        ("evaluate", tmp_path / "list"): "it is not a JSON object",
        ("predict", tmp_path / "hollow", tmp_path / "picture.png"): "can't be restored",
        ("evaluate", trained_run, "--data", "apparrel"): "Did you mean 'apparel'",
        ("evaluate", trained_run, "--data", "apparel"): "facefeat prepare apparel",
        ("predict", trained_run.parent / "trainde", "x.jpg"): "runs beside it",
        ("predict", trained_run): "name the pictures",
        ("convert", tmp_path / "junk.pth", "--to", tmp_path / "x"): "junk.pth",
        ("convert", tmp_path / "absent.pth", "--to", tmp_path / "x"): "no such file",
        ("test", trained_run): "Did you mean 'evaluate'",
        ("infer", trained_run): "Did you mean 'predict'",
        ("train", "avatars", "--epohcs", "3"): "Did you mean --epochs",
        ("train", "avatars", "--bs", "3"): "Did you mean --batch-size",
        ("train", "avatars", "--model=vit_b_16"): "Did you mean --trunk",
        ("train", "avatars", "--output_dir", tmp_path): "Did you mean --run",
        ("train", "avatars", "--gpus", "1"): "Did you mean --device",
        ("predict", trained_run, "x.png", "--output", "x.csv"): "Did you mean --out",
        ("evaluate", trained_run, "--dataset", "avatars"): "Did you mean --data?",
        ("evaluate", trained_run, "--device", "npu"): "--device takes cpu, gpu",
        ("export", trained_run, tmp_path / "junk.pth"): "--overwrite replaces it",
        ("prepare",): "name a data set",
        ("prepare", "fairfase"): "Did you mean 'fairface'",
        ("prepare", "avatars", "--from", tmp_path): "is drawn, not read from a folder",
        ("prepare", "fairface", "--data-dir", tmp_path): "fairface-img-margin125-trainval.zip",
        ("prepare", "glasses", "--from", tmp_path / "absent", "--data-dir", tmp_path): "absent",
    }
    for call, hint in calls.items():
        code, line = said(capsys, *call)
        assert code == 2, call
        assert hint in line, call
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "argv",
    [
        ["train", "avatars", "--epochs", "three"],
        ["train", "avatars", "--schedule", "sideways"],
        ["evaluate"],
        ["convert", "x.pth"],
    ],
)
def test_parse_errors_exit_with_2(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out


def test_help_names_every_command_and_needs_no_jax():
    code = (
        "import sys; from facefeat_jax.cli import main; code = main(['--help']);"
        "assert not {'jax', 'tensorflow_datasets', 'grain', 'PIL'} & set(sys.modules); sys.exit(code)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for command in COMMANDS:
        assert f"\n  {command} " in answer.stdout


def test_help_of_every_command_loads_no_jax():
    code = (
        "import sys\nfrom facefeat_jax.cli import COMMANDS, main\nfor command in COMMANDS:\n"
        "    try: main([command, '--help'])\n    except SystemExit: pass\n"
        "sys.exit(f'loaded: {found}' if (found := {'jax', 'grain', 'PIL'} & set(sys.modules)) else 0)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr


def test_every_command_has_help(capsys):
    for command in COMMANDS:
        try:
            assert main([command, "--help"]) == 0
        except SystemExit as stopped:
            assert not stopped.code
        assert "usage" in capsys.readouterr().out.lower()


def help_of(command: str, capsys) -> str:
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", [50, 80, 200])
@pytest.mark.parametrize("command", sorted({*COMMANDS, "train avatars"} - {"train"}))
def test_help_wraps_and_says_all_of_every_option(command, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = help_of(command, capsys)
    assert all(len(line) < min(columns, 100) for line in text.splitlines() if not line.startswith(("usage", "  --")))
    assert not {"{None}", "[[", "STR", "(default: )", "(default: None)"} & set(text.split())
    kind = TrainConfig if command == "train avatars" else importlib.import_module(COMMANDS[command]).Arguments
    for option in options_of(kind, load_recipe("avatars") if kind is TrainConfig else None):
        assert option.text and " ".join(option.text.split()) in " ".join(text.split())
        assert option.usage in text


def test_usage_names_what_a_command_takes(capsys):
    usages = {
        "predict": "RUN IMAGE... [options]",
        "prepare": "SOURCE... [options]",
        "export": "RUN FILE [options]",
        "audit": "RUN|DATASET [options]",
        "convert": "FILE --to PATH [options]",
        "launch": "N [options] -- RECIPE [--field value]",
    }
    for command, usage in usages.items():
        assert help_of(command, capsys).splitlines()[0] == f"usage: facefeat {command} {usage}"
    groups = help_of("train avatars", capsys).split("\n\n")
    assert any(
        group.startswith("The loss, the learning rate") and "--learning-rate, --lr X" in group for group in groups
    )


def test_other_names_of_commands_and_options_work(trained_run, capsys, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    for name in ("evaluate", "val"):
        assert main([name, str(trained_run), "--device", "cpu", "--json"]) == 0
        assert os.environ["JAX_PLATFORMS"] == "cpu"  # JAX itself is loaded already
    first, second = capsys.readouterr().out.split("}\n{")
    assert first + "}" == "{" + second.rstrip()
    for argv in (["version"], ["--version"]):
        assert main(argv) == 0
        assert capsys.readouterr().out.strip() == __version__
    monkeypatch.setattr("facefeat_jax.commands._train.run", lambda config: print(config.flat()) or 0)
    assert main(["train", "avatars", "--lr", "0.5", "--no-flip", "--batch_size=3"]) == 0
    assert main(["train", "avatars", "--flip"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "'learning_rate': 0.5" in first and "'flip': False" in first and "'batch_size': 3" in first
    assert "'flip': True" in second


def test_what_was_written_is_named(trained_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        Image.new("RGB", (40, 40), "red").save(f"{name}.png")
    calls = {
        "predict RUN a.png b.png --draw labelled --explain why": ("2 pictures to labelled/", "2 pictures to why/"),
        "predict RUN a.png --out answers.csv": ("wrote the answers for 1 picture to answers.csv",),
        "export RUN model.pth": ("wrote model.pth (",),
        "convert model.pth --to again": ("wrote the run again/",),
        "audit RUN --out found": ("wrote found/audit.html",),
    }
    for call, lines in calls.items():
        assert main(call.replace("RUN", str(trained_run)).split()) == 0, call
        said = capsys.readouterr()
        assert all(line in said.out + said.err for line in lines), call
    assert len(list(tmp_path.glob("labelled/*"))) == len(list(tmp_path.glob("why/*"))) == 2
    before = (tmp_path / "model.pth").read_bytes()
    assert main(["export", str(trained_run), "model.pth"]) == 2 and (tmp_path / "model.pth").read_bytes() == before
    assert main(["export", str(trained_run), "model.pth", "--overwrite"]) == 0


def test_every_recipe_is_a_config_with_a_short_version_and_says_how_to_run_it():
    from facefeat_jax.config.recipes import recipe_folder

    for name in list_recipes():
        assert load_recipe(name).recipe == name
        assert f"facefeat train {name}" in (recipe_folder() / f"{name}.py").read_text()


def test_the_baseline_recipe_is_the_notebooks():
    recipe = load_recipe("baseline")
    data, model, batches, optimizer = recipe.data, recipe.model, recipe.batches, recipe.optimizer
    assert (batches.batch_size, batches.epochs, optimizer.learning_rate, data.image_size) == (32, 5, 1e-4, 224)
    assert (data.tasks, data.sources) == (("gender", "glasses", "shirt"), ("fairface", "glasses", "apparel"))
    assert (batches.schedule, model.trainable, model.batch_norm) == ("sequential", ("last",), "batch")
    assert (data.decode, model.weights, recipe.numerics.dtype) == ("as_notebook", "imagenet", "float32")
    assert optimizer.learning_rate_schedule == "constant"


def test_a_config_survives_json(tmp_path):
    config = TrainConfig().replace(run=tmp_path, tasks=("shirt",), limit=3)
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json())), where="x") == config


def test_evaluate_repeats_what_training_found(trained_run, capsys):
    assert main(["evaluate", str(trained_run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["heads"]
    expected = json.loads((trained_run / "results.json").read_text())["heads"]
    for task, figures in expected.items():
        assert {name: found[task][name] for name in figures} == pytest.approx(figures, rel=1e-5)
    assert main(["evaluate", str(trained_run)]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == list(expected)


def test_models_says_what_there_is(capsys):
    assert main(["models", "resnet50", "--json"]) == 0
    (resnet50,) = json.loads(capsys.readouterr().out)
    assert (resnet50["name"], resnet50["parameters"], resnet50["last"]) == ("resnet50", 23_508_032, ["layer4"])
    assert [entry["name"] for entry in resnet50["weights"]] == ["resnet50-11ad3fa6", "resnet50-0676ba61"]
    assert main(["models", "resnet50"]) == 0
    text = capsys.readouterr().out
    assert (
        "23,508,032 parameters" in text and "(--weights imagenet)" in text and resnet50["weights"][0]["sha256"] in text
    )
    assert main(["models", "resnet5"]) == 2
    assert "Did you mean 'resnet50'" in capsys.readouterr().err


def test_doctor_answers_in_json(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["packages"]["jax"] != "not installed"
    assert found["devices"]["a product"].startswith("right")
    assert "free of" in found["memory"]["host"]
