"""Downloads as folders and zips, friendly and hostile."""

from __future__ import annotations

import os
import stat
import struct
import tracemalloc
import zipfile

import pytest

from facefeat_jax.data.trees import MAX_FILE_BYTES, UnreadableError, open_tree
from facefeat_jax.system.errors import UserError

FILES = {"b/2.jpg": b"two", "a.csv": b"table", "b/1.jpg": b"one"}


def test_folder_and_zip_give_the_same(lay_out, pack):
    for tree in (open_tree(lay_out(FILES)), open_tree(pack(FILES))):
        assert tree.files() == ["a.csv", "b/1.jpg", "b/2.jpg"]
        assert tree.read("b/2.jpg") == b"two"
        assert not tree.skipped


def test_folder_of_zips_beside_other_files(lay_out, pack):
    pack({"train/1.jpg": b"x"}, "download/pictures.zip")
    tree = open_tree(lay_out({"labels.csv": b"l"}))
    assert tree.files() == ["labels.csv", "train/1.jpg"]
    assert (tree.read("labels.csv"), tree.read("train/1.jpg")) == (b"l", b"x")


def test_an_archive_beside_what_was_unpacked_from_it_does_not_count(lay_out, pack):
    pack({"train/1.jpg": b"x", "train/2.jpg": b"y"}, "download/pictures.zip")
    assert open_tree(lay_out({"train/1.jpg": b"x"})).files() == ["pictures.zip", "train/1.jpg"]


def test_what_systems_leave_behind_is_not_there(lay_out, pack):
    clutter = {"__MACOSX/b/._1.jpg": b"", ".DS_Store": b"", "b/Thumbs.db": b"", "b/._1.jpg": b"", "b/1.jpg": b"1"}
    for tree in (open_tree(lay_out(clutter)), open_tree(pack(clutter))):
        assert tree.files() == ["b/1.jpg"]


def test_links_are_followed_and_loops_are_not(lay_out, tmp_path):
    root = lay_out({"real/1.jpg": b"1"})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "2.jpg").write_bytes(b"2")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "real" / "loop").symlink_to(root)
    (root / "dangling.jpg").symlink_to(root / "nowhere")
    (root / "self.jpg").symlink_to(root / "self.jpg")
    tree = open_tree(root)
    assert tree.files() == ["linked/2.jpg", "real/1.jpg"]
    assert dict(tree.skipped) == {
        "dangling.jpg": "a dangling link",
        "self.jpg": "a dangling link",
        "real/loop": "a link to a folder above it",
    }


def test_links_to_each_other_do_not_multiply(lay_out):
    """Twenty folders with two links each to the next are a million paths to the same picture."""
    root = lay_out({f"{level:02}/{level}.jpg": b"1" for level in range(20)})
    for level in range(19):
        for name in ("one", "two"):
            (root / f"{level:02}" / name).symlink_to(root / f"{level + 1:02}")
    tree = open_tree(root)
    assert {name.rpartition("/")[2] for name in tree.files()} == {f"{level}.jpg" for level in range(20)}
    assert len(tree.files()) + len(tree.skipped) < 500
    assert {reason for _, reason in tree.skipped} == {"a link to a folder that is listed already"}


def test_folders_in_folders_without_end(lay_out):
    root = lay_out({"1.jpg": b"1"})
    os.makedirs(root / "/".join(["x"] * 150))
    tree = open_tree(root)
    assert tree.files() == ["1.jpg"]
    assert [reason for _, reason in tree.skipped] == ["more than 100 folders deep"]


def test_a_file_that_became_a_pipe_is_not_waited_for(lay_out):
    root = lay_out({"1.jpg": b"1"})
    tree = open_tree(root)
    (root / "1.jpg").unlink()
    os.mkfifo(root / "1.jpg")
    with pytest.raises(UnreadableError, match="not a regular file"):
        tree.read("1.jpg")


def test_names_that_are_not_utf8_and_odd_files_are_skipped_with_reason(lay_out):
    root = lay_out({"1.jpg": b"1"})
    with open(os.fsencode(root) + b"/caf\xe9.jpg", "wb"):
        pass
    os.mkfifo(root / "pipe.jpg")
    (root / "folder.jpg").mkdir()
    with open(root / "huge.jpg", "wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    tree = open_tree(root)
    assert tree.files() == ["1.jpg"]
    assert dict(tree.skipped) == {
        "caf\\udce9.jpg": "its name is not UTF-8",
        "pipe.jpg": "not a regular file",
        "huge.jpg": "larger than 256 MiB",
    }


def test_a_file_that_goes_away_is_unreadable(lay_out):
    root = lay_out(FILES)
    tree = open_tree(root)
    (root / "b" / "1.jpg").unlink()
    with pytest.raises(UnreadableError, match="No such file"):
        tree.read("b/1.jpg")


@pytest.mark.parametrize("name", ["../out.jpg", "a/../../out.jpg", "/etc/out.jpg", "C:/out.jpg", "..\\out.jpg"])
def test_entries_that_climb_out_are_skipped(pack, name):
    tree = open_tree(pack({name: b"x", "fine/1.jpg": b"1"}))
    assert tree.files() == ["fine/1.jpg"]
    assert [reason for _, reason in tree.skipped] == ["its name climbs out of the archive"]


def test_links_in_archives_are_skipped(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    tree = open_tree(tmp_path / "a.zip")
    assert tree.files() == [] and tree.skipped == [("link.jpg", "a link")]


def test_encrypted_and_lying_entries_are_skipped(pack):
    path = pack({"one.jpg": b"secret", "two.jpg": b"bomb", "three.jpg": b"fine"})
    raw = bytearray(path.read_bytes())
    central = raw.index(b"PK\x01\x02")
    struct.pack_into("<H", raw, central + 8, 1)  # flag: encrypted
    central = raw.index(b"PK\x01\x02", central + 1)
    struct.pack_into("<I", raw, central + 24, MAX_FILE_BYTES + 1)  # claimed size
    path.write_bytes(raw)
    tree = open_tree(path)
    assert tree.files() == ["three.jpg"]
    assert tree.skipped == [("one.jpg", "encrypted"), ("two.jpg", "larger than 256 MiB")]


def test_an_entry_that_unpacks_to_more_than_it_claims_is_cut_there(pack):
    """`ZipFile.read` would unpack all of it before it compares."""
    path = pack({"1.jpg": bytes(64 * 2**20)})
    raw = bytearray(path.read_bytes())
    struct.pack_into("<I", raw, raw.index(b"PK\x01\x02") + 24, 100)
    path.write_bytes(raw)
    tree = open_tree(path)
    tracemalloc.start()
    with pytest.raises(UnreadableError, match="damaged in the archive"):
        tree.read("1.jpg")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 4 * 2**20


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_can_t_be_bounded_are_skipped(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("1.jpg", "1")
    tree = open_tree(tmp_path / "a.zip")
    assert not tree.files()
    assert tree.skipped == [("1.jpg", "packed by a method that is not read: unpack it and pass the folder")]


def test_entries_over_the_same_bytes_are_skipped_but_for_the_last(pack):
    path = pack({f"{number}.jpg": bytes(100_000) for number in range(4)})
    raw = bytearray(path.read_bytes())
    at = raw.index(b"PK\x01\x02")
    while (following := raw.find(b"PK\x01\x02", at + 1)) > 0:
        raw[following + 42 : following + 46] = raw[at + 42 : at + 46]  # every entry lies where the first does
        at = following
    path.write_bytes(raw)
    tree = open_tree(path)
    assert len(tree.files()) == 1
    assert {reason for _, reason in tree.skipped} == {"shares its bytes with another entry"}


def test_a_name_twice_in_an_archive_gives_the_first(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("1.jpg", "first")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("1.jpg", "second")
    tree = open_tree(tmp_path / "a.zip")
    assert tree.read("1.jpg") == b"first"
    assert tree.skipped == [("1.jpg", "named a second time in the archive")]


def test_damaged_entries_are_unreadable(pack):
    path = pack({"1.jpg": bytes(range(256)) * 20})
    raw = bytearray(path.read_bytes())
    raw[60:70] = b"\x55" * 10
    path.write_bytes(raw)
    with pytest.raises(UnreadableError, match="damaged in the archive"):
        open_tree(path).read("1.jpg")


@pytest.mark.parametrize("cut", [0, 10, -10])
def test_what_is_no_zip_is_one_line(pack, cut):
    path = pack(FILES)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match="not a zip archive, or cut short") as caught:
        open_tree(path)
    assert "\n" not in str(caught.value)


def test_names_in_utf8_without_the_flag_are_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("caf\u00e9/1.jpg", "1")
    raw = (tmp_path / "a.zip").read_bytes()
    cleared = raw.replace(b"\x14\x00\x00\x08", b"\x14\x00\x00\x00")
    assert cleared != raw
    (tmp_path / "a.zip").write_bytes(cleared)
    assert open_tree(tmp_path / "a.zip").files() == ["caf\u00e9/1.jpg"]


def test_an_archive_that_lies_about_utf8_names_is_one_line(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("caf\u00e9.jpg", "1")
    (tmp_path / "a.zip").write_bytes((tmp_path / "a.zip").read_bytes().replace(b"\xc3\xa9", b"\xff\xfe"))
    with pytest.raises(UserError, match="not UTF-8; unpack it"):
        open_tree(tmp_path / "a.zip")


def test_nothing_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        open_tree(tmp_path / "missing")
