"""Tables and lists: what is read of them, and what spreadsheets get."""

from __future__ import annotations

import csv
import io
import re

import numpy as np
import pytest

from facefeat_jax.system.files import ByName, identity
from facefeat_jax.system.tables import csv_row, csv_table, from_csv, read_table, to_csv

FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\uff1d1", "'=1", "''@x"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_cell_that_a_spreadsheet_takes_for_a_formula_begins_with_an_apostrophe(text):
    assert to_csv(text) == f"'{text}"
    assert from_csv(to_csv(text)) == text


@pytest.mark.parametrize("text", ["", "a=b", "'quoted'", "-0.5", "+1e-05", "-inf", "nan", "0.25", "--", "é -"])
def test_numbers_and_other_texts_stay_as_they_are(text):
    assert to_csv(text) == (f"'{text}" if text == "--" else text)
    assert from_csv(to_csv(text)) == text


def test_any_text_comes_back():
    random = np.random.RandomState(0)
    letters = list("'=+-@ \t\r\n15.eab\uff1d;,\"")
    for _ in range(3000):
        cells = ["".join(random.choice(letters, random.randint(6))) for _ in range(3)]
        (back,) = csv.reader(io.StringIO(csv_row(cells), newline=""))
        assert list(map(from_csv, back)) == cells


def test_what_is_written_is_read():
    rows = [[text.strip(), -0.5] for text in FORMULAS]
    found = read_table(csv_table(["=file", "number"], rows).encode(), "x.csv", ("=file",))
    assert [list(row.values.values()) for row in found] == [[text, "-0.5"] for text, _ in rows]
    assert all(not re.match(r"\s*[=+@]", text) for row in csv.reader(io.StringIO(csv_table([], rows))) for text in row)


def test_one_rule_for_file_names():
    assert identity("./a//b/../c.png") == identity("a/c.png") == identity("a\\c.png")
    assert identity("A.png") != identity("a.png")
    names: ByName[int] = ByName()
    for value, name in enumerate(("a/b.png", "./a/b.png", "a\\b.png")):
        names.add(name, value)
    assert names.find("a/./b.png") == [0, 1]
    assert names.find("a\\b.png") == [2]
    assert names.find("c.png") == []
