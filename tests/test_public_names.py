"""The tables of public names: what they list is there and cheap to list, and the page has all of it."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys

import pytest

import facefeat_jax

from .conftest import ROOT

PAGE = (ROOT / "docs" / "reference" / "names.md").read_text()
SECTIONS = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
PACKAGES = [f"facefeat_jax.{found.name}" for found in pkgutil.iter_modules(facefeat_jax.__path__) if found.ispkg]
INTERNAL = {"facefeat_jax.system", "facefeat_jax.benchmarking"}


def test_every_package_has_a_section():
    assert {"facefeat_jax", "weights_conversion", *PACKAGES} - INTERNAL <= SECTIONS.keys()


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_the_page_lists_what_the_table_does_each_name_once(name):
    levels = re.findall(r"\*\*(stable|may change)\*\*:((?:\s+`\w+`,?)+)", SECTIONS[name])
    listed = [found for _, names in levels for found in re.findall(r"`(\w+)`", names)]
    module = importlib.import_module(name)
    assert sorted(listed) == sorted(module.__all__)
    assert set(module.__all__) <= set(dir(module))
    for public in module.__all__:
        getattr(module, public)
    # Once it is imported, a module of the same name would take the place of what a lazy package loads later.
    if "TYPE_CHECKING" in vars(module):
        assert not set(module.__all__) & {found.name for found in pkgutil.iter_modules(module.__path__)}


def test_listing_names_loads_nothing():
    rooms = [name for name in PACKAGES if name not in {"facefeat_jax.models", "facefeat_jax.avatars"}]
    program = f"import importlib, sys\nfor room in {rooms}: dir(importlib.import_module(room))\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"jax", "flax", "numpy", "PIL", "tensorflow_datasets"}


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing"):
        facefeat_jax.nothing  # noqa: B018


def test_modules_without_public_names_begin_with_an_underscore():
    named = set()
    for init in [*ROOT.glob("facefeat_jax/**/__init__.py"), ROOT / "weights_conversion" / "__init__.py"]:
        named.update(re.findall(r"(?:facefeat_jax|weights_conversion)[\w.]+", init.read_text()))
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        named.update(re.findall(r"(?:facefeat_jax|weights_conversion)[\w.]+", page.read_text()))
    rooms = [ROOT / "weights_conversion", *(ROOT / name.replace(".", "/") for name in PACKAGES if name not in INTERNAL)]
    modules = {path for room in rooms for path in room.glob("*.py") if path.stem[0] != "_"}
    assert modules and not {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules} - named
