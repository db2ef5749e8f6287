"""The table of packages in docs/install.md is written by a program, for every extra."""

from __future__ import annotations

import tomllib

import count_packages

# Of torch, and of CUDA: gigabytes, which nobody counts here.
LEFT_OUT = {"cuda", "compare"}


def test_every_extra_is_counted_and_in_the_table() -> None:
    project = tomllib.loads((count_packages.ROOT / "pyproject.toml").read_text())["project"]
    assert {*count_packages.EXTRAS, *LEFT_OUT} - {""} == set(project["optional-dependencies"])
    page = count_packages.PAGE.read_text()
    rows = [line.split(" | ")[0].strip("|` ") for line in page.splitlines() if line.startswith("| `")]
    assert rows[: len(count_packages.EXTRAS) - 1] == list(count_packages.EXTRAS)[1:]


def test_the_table_takes_the_place_of_the_one_before() -> None:
    page = count_packages.PAGE.read_text()
    found = count_packages.written(page, [("none", "three", "1", "2")])
    assert "| none | three | 1 | 2 |" in found and "`predict` |" not in found
    assert count_packages.written(found, [("none", "three", "1", "2")]) == found
    assert found.startswith(page.partition("<!--")[0]) and found.endswith(page.partition("<!-- end -->")[2])
