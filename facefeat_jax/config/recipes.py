"""The recipes: Python files whose `config()` returns a `TrainConfig`."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

from facefeat_jax.config.train_config import TrainConfig
from facefeat_jax.system.errors import unknown


def recipe_folder() -> Path:
    """Returns the folder of the recipes: a wheel has them inside the package, a checkout beside it."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "configs"


def list_recipes() -> list[str]:
    """Returns the names of the recipes."""
    return sorted(path.stem for path in recipe_folder().glob("[!_]*.py"))


def load_recipe(name: str) -> TrainConfig:
    """Returns the config of a recipe.

    Raises:
      UserError: no recipe has this name.
    """
    if name not in list_recipes():
        raise unknown("recipe", name, list_recipes())
    path = recipe_folder() / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"facefeat_jax_recipe_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dataclasses.replace(module.config(), recipe=name)


def asked(config: TrainConfig, *names: str) -> list[str]:
    """Returns those of the fields whose values are not the recipe's (without a recipe: not the default)."""
    given, own = config.flat(), (load_recipe(config.recipe) if config.recipe else TrainConfig()).flat()
    return [name for name in names if given[name] != own[name]]
