"""The groups of a run's settings: unique names, bounds beside the fields, and what the command line and files show."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from typing import get_type_hints

import pytest

from facefeat_jax.cli import main
from facefeat_jax.config import BatchConfig, DataConfig, TrainConfig, list_recipes, load_recipe
from facefeat_jax.runs.run_config import read_config
from facefeat_jax.system.errors import UserError

GROUPS = {name: kind for name, kind in get_type_hints(TrainConfig).items() if dataclasses.is_dataclass(kind)}
NAMES = list(TrainConfig().flat())
NUMBERS = [name for name, value in TrainConfig().flat().items() if type(value) in (int, float)]


def test_no_two_fields_have_the_same_name():
    fields = [field.name for kind in (TrainConfig, *GROUPS.values()) for field in dataclasses.fields(kind)]
    assert len(fields) == len(set(fields))
    assert set(NAMES) == set(fields) - set(GROUPS)


def test_help_lists_every_option_once_below_the_heading_of_its_group(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        main(["train", "best", "--help"])
    text = capsys.readouterr().out
    first = re.compile(r"^  --(?:weights-key, --)?(?:no-)?(\w[\w-]*)", re.MULTILINE)
    listed = [names for part in text.split("\n\n") if (names := first.findall(part))]
    listed = [["weights-key" if name == "key" else name for name in names] for names in listed]
    own = {name.replace("_", "-") for name in NAMES if name in TrainConfig.__dataclass_fields__} - {"recipe"}
    assert set(listed[0]) == own | {"device"}
    assert listed[1:] == [
        [field.name.replace("_", "-") for field in dataclasses.fields(kind)] for kind in GROUPS.values()
    ]


def test_a_runs_config_has_no_groups_and_is_read_back(trained_run):
    values = json.loads((trained_run / "config.json").read_text())
    assert set(NAMES) <= values.keys() and not any(isinstance(value, dict) for value in values.values())
    config = read_config(trained_run)
    assert (config.data.image_size, config.batches.epochs) == (values["image_size"], values["epochs"]) == (32, 2)


@pytest.mark.parametrize("recipe", list_recipes())
def test_a_config_comes_back_from_its_own_fields(recipe):
    config = load_recipe(recipe)
    assert TrainConfig().replace(**config.flat()) == config
    assert TrainConfig.from_json(config.to_json(), where="x") == config


def test_replace_reaches_every_group_and_checks_the_whole():
    config = load_recipe("best").replace(tasks=("shirt",), epochs=2, crop=0.1, recipe="")
    assert (config.data.tasks, config.batches.epochs, config.augmentation.crop) == (("shirt",), 2, 0.1)
    assert (config.augmentation.flip, config.optimizer) == (True, load_recipe("best").optimizer)
    with pytest.raises(UserError, match="no setting epoch;"):
        config.replace(epoch=2)
    with pytest.raises(UserError, match="give --batch-norm frozen"):
        config.replace(cache_prefix=True)
    # Two changes that are only right together.
    assert TrainConfig().replace(schedule="sequential", balance=1.0).batches == BatchConfig(schedule="sequential")
    with pytest.raises(UserError, match="data of a config takes a DataConfig"):
        TrainConfig(data={"tasks": ("shirt",)})
    assert TrainConfig(data=DataConfig(tasks=("shirt",))).data.tasks == ("shirt",)


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_bounds(name):
    option = f"--{name.replace('_', '-')}"
    for bad in (-1, math.inf):
        with pytest.raises(UserError, match=f"{option} (must be|takes)"):
            TrainConfig().replace(**{name: bad})


def test_a_number_that_no_float_holds_is_refused():
    with pytest.raises(UserError, match="--learning-rate takes a number"):
        TrainConfig.from_json({"learning_rate": 10**400}, where="config.json")


@pytest.mark.parametrize(
    ("option", "value", "bounds"),
    [
        ("--batch-size", "0", "1 or more"),
        ("--limit", "0", "1 or more"),
        ("--seed", "2147483648", "2147483647 or less"),
        ("--feed-threads", "1025", "1024 or less"),
        ("--learning-rate", "0.0", "positive"),
        ("--weight-decay", "inf", "0 or more"),
        ("--crop", "1.0", "0 or more and less than 1"),
        ("--balance", "1.5", "0 or more and 1 or less"),
        ("--ema", "nan", "0 or more and less than 1"),
    ],
)
def test_a_number_out_of_bounds_is_refused_in_one_line(capsys, tmp_path, option, value, bounds):
    assert main(["train", "avatars", option, value, "--run", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{option} must be {bounds}, got {value}" in line
    assert not (tmp_path / "run").exists()


def test_a_file_with_a_number_out_of_bounds_is_named(capsys, tmp_path):
    """As an earlier version wrote it: without a digest."""
    (tmp_path / "config.json").write_text(json.dumps(TrainConfig().to_json() | {"batch_size": 0}))
    assert main(["evaluate", str(tmp_path)]) == 2
    assert f"{tmp_path / 'config.json'} can't be used: --batch-size must be 1 or more, got 0" in capsys.readouterr().err
