"""JSON that later commands go by: any flipped bit is seen, and nothing that JSON is not gets through."""

from __future__ import annotations

import json
import os

import pytest

from facefeat_jax.system import checked_json

CONTENT = {"classes": ["female", "male"], "std": [0.229, 1e-7], "step": 50, "folder": "/home/a", "notes": None}


def as_text(values) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()


def test_what_is_read_is_what_was_written(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(as_text(checked_json.with_digest(CONTENT)))
    assert checked_json.read_checked(path) == (CONTENT, True)
    path.write_text(json.dumps(json.loads(path.read_text())).replace(", ", ",\r\n"))  # other line ends and indentation
    assert checked_json.read_checked(path) == (CONTENT, True)


def test_every_flipped_bit_is_seen_or_changes_nothing(tmp_path):
    path = tmp_path / "a.json"
    good = as_text(checked_json.with_digest(CONTENT, editable=("folder",)))
    refused = 0
    for at in range(len(good)):
        for bit in range(8):
            path.write_bytes(good[:at] + bytes([good[at] ^ 1 << bit]) + good[at + 1 :])
            try:
                found = checked_json.read_checked(path, editable=("folder",))
            except ValueError:
                refused += 1
                continue
            assert found.is_checked
            assert {**found.content, "folder": CONTENT["folder"]} == CONTENT
    assert refused > 7 * len(good)


def test_what_earlier_versions_wrote_is_read_as_unchecked():
    for old in (CONTENT, {"format": 1, **CONTENT}):
        assert checked_json.checked(old) == (CONTENT, False)
    whole = checked_json.with_digest(CONTENT)
    for lost in ("format", "sha256"):
        with pytest.raises(ValueError, match="digest"):
            checked_json.checked({name: value for name, value in whole.items() if name != lost})
    for version in (0, 1, 3, "2", True, 1.0, None):
        with pytest.raises(ValueError, match="digest"):
            checked_json.checked({**whole, "format": version})


def test_a_later_format_is_named(monkeypatch):
    monkeypatch.setattr(checked_json, "FORMAT", 3)
    later = checked_json.with_digest(CONTENT)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="format 3, this version reads 2"):
        checked_json.checked(later)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"[" * 200_000, "nested too deeply"),
        (b"[" * 40 + b"]" * 40, "nested too deeply"),
        (b'{"a": ' * 40 + b"1" + b"}" * 40, "nested too deeply"),
        (b'{"a": 1e999}', "1e999"),
        (b'{"a": -1e999}', "-1e999"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": [-Infinity]}', "-Infinity"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": "\xff"}', "decode"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
        (b'{"a": 1', "Expecting"),
        (b"", "Expecting"),
    ],
)
def test_what_is_not_json_is_refused(text, why):
    with pytest.raises(ValueError, match=why):
        checked_json.parse(text)


def test_what_is_not_an_object_or_not_a_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not a JSON object"):
        checked_json.checked([1])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        checked_json.read(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b" " * 100 + b"{}")
    with pytest.raises(OSError, match="larger than"):
        checked_json.read(tmp_path / "large", most_bytes=100)


def test_what_no_json_can_hold_is_not_written():
    with pytest.raises(ValueError, match="JSON"):
        checked_json.with_digest({"a": float("nan")})
