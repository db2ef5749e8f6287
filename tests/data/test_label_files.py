"""Label tables, in every state."""

from __future__ import annotations

import pytest

from facefeat_jax.data.builders.fairface import mended_age
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.tables import read_table


def test_plain_bom_crlf_quotes_case_and_extra_columns_read_the_same():
    plain = b'file,gender,race\ntrain/1.jpg,Male,"East, Asian"\n'
    odd = b'\xef\xbb\xbf File ,extra,GENDER,race\r\ntrain/1.jpg,x, Male ,"East, Asian"\r\n\r\n'
    expected = {"file": "train/1.jpg", "gender": "Male", "race": "East, Asian"}
    assert [row.values for row in read_table(plain, "x.csv", ["file"])] == [expected]
    assert [row.values for row in read_table(odd, "x.csv", ["file"])] == [{**expected, "extra": "x"}]


def test_columns_that_nobody_asks_for_may_be_there_twice():
    (row,) = read_table(b"file,,note,note,\na,,1,2,\n", "x.csv", ["file"])
    assert row.values["file"] == "a" and not row.problem


def test_rows_of_another_width_keep_their_number():
    rows = read_table(b"file,gender\na,Male\nb\nc,Male,x\nd,Female\n", "x.csv", ["file"])
    assert [row.number for row in rows] == [0, 1, 2, 3]
    assert [row.problem for row in rows] == ["", "1 field instead of 2", "3 fields instead of 2", ""]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no column 'file', 'race'; .*: nothing"),
        (b"file,age\n1,2\n", "no column 'race'; .*: file, age"),
        (b"file,race,Race\n1,a,b\n", "2 columns are called 'race'; keep one"),
        (b"file|race\n1|2\n", "no column 'file', 'race'; .*: file.race"),
        (b"file,race\n1,2\n3,\0\n", r"line 3: a NUL byte \(byte 16\)"),
        (b"file,race\n1,2\n\xe9,1\n", r"not UTF-8 \(line 3, byte 14\); save it as"),
        ("file,race\n1,2\n".encode("utf-16"), "in UTF-16, not UTF-8"),
        (b"file,race\n", "no rows below the header"),
        (b"file,race\n\xff\xfe,x\n", "not UTF-8"),
        (b'file,race\n"open,x\n', "not readable as CSV"),
        (b"file,race\n" + b"x" * 200_000 + b",y\n", "not readable as CSV"),
    ],
)
def test_unreadable_tables_are_one_line(data, message):
    with pytest.raises(UserError, match=message) as caught:
        read_table(data, "labels.csv", ["file", "race"])
    assert str(caught.value).startswith("labels.csv") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("mangled", "age"),
    [
        ("9-Mar", "3-9"),
        ("19-Oct", "10-19"),
        ("Mar-09", "3-9"),
        ("03-Sep", "3-9"),
        ("Oct-19", "10-19"),
        ("9-March", "3-9"),
        ("20-29", "20-29"),
        ("0-2", "0-2"),
        ("2-Jan", "1-2"),
        ("3/9/2024", "3-9"),
        ("09/03/24", "3-9"),
        ("19.10.", "10-19"),
        ("2024-03-09", "3-9"),
        ("2024-10-19 00:00:00", "10-19"),
        ("45360", "3-9"),
        ("45584", "10-19"),
        ("3\u20139", "3-9"),
        ("3 - 9", "3-9"),
        ("99999", "99999"),
        ("\u0663-Mar", "\u0663-Mar"),
        ("2024-xx-09", "2024-xx-09"),
        ("more than 70", "more than 70"),
        ("Mar-Oct", "Mar-Oct"),
        ("", ""),
    ],
)
def test_ages_mangled_by_a_spreadsheet_are_mended(mangled, age):
    assert mended_age(mangled) == age
