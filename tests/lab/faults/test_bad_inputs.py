"""A short sample of the campaigns of bad inputs, and that they see what they are there to see."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facefeat_jax.data.images import BadImageError, check
from facefeat_jax.data.trees import open_tree
from facefeat_jax.system import tables
from facefeat_jax.system.errors import UserError
from faults import cases, corpus, decoding, labels, models, processes, weight_files, weights
from faults.crafted import CRAFTED
from faults.tally import Tally

pytestmark = pytest.mark.long


def assert_survived(tally: Tally, least: int) -> None:
    assert tally.failures == [] and tally.survived == tally.tried >= least


def test_label_files(tmp_path):
    tally = labels.run(tmp_path, count=400, seed=3)
    assert_survived(tally, 400)
    assert len(tally.counts) > 35


def test_label_files_that_are_read_wrongly_are_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(labels, "read_table", lambda data, name, columns: tables.read_table(data[3:], name, columns))
    tally = labels.run(tmp_path, count=40, seed=3)
    assert 0 < tally.survived < tally.tried and len(tally.failures) == tally.tried - tally.survived


def test_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "MODELS", 0)
    tally = weights.run(tmp_path, count=200, seed=3)
    assert_survived(tally, 200)
    assert len(tally.counts) == 8 + len(weight_files.LYING) + 14 and not (tmp_path / "ran").exists()


def test_the_attacks_are_attacks_and_the_watch_sees_them(tmp_path):
    """Otherwise nothing that the campaign finds would mean anything."""
    sentinel = tmp_path / "ran"
    program = f"""
import pickle, sys
from pathlib import Path
import numpy as np
from faults import weight_files, weights
weight_files.CONTAINERS = (lambda body: body,) * 4
makers = weight_files.hostile(Path({str(sentinel)!r}))
contents = {{name: make(np.random.RandomState(0)) for name, make in makers.items()}}
watch = weights._Watch()
for name in ("os.system", "eval", "exec, deep inside", "subprocess", "a pickle in a pickle", "open for writing"):
    watch.on, watch.seen = True, []
    pickle.loads(contents["pickle: " + name])
    watch.on = False
    assert Path({str(sentinel)!r}).exists(), name
    Path({str(sentinel)!r}).unlink()
    assert watch.seen, name
print("seen")
"""
    ended = processes.run([processes.sys.executable, "-c", program], tmp_path / "work", timeout=60)
    assert ended.out == "seen\n", ended.err


def test_models_that_are_not_to_be_used(tmp_path, monkeypatch, capsys):
    """Every way once, on a small stand-in for the trunk that `convert` reads into."""
    from facefeat_jax.exporting import conversion

    taken = []
    monkeypatch.setattr(conversion, "create_from_weights", lambda *args: taken.append(args))
    models.main(tmp_path, 0, len(models._SPOILED) + 1, 3)
    tried = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [case["failure"] for case in tried] == [""] * (len(models._SPOILED) + 1) and not taken


def test_a_process_that_dies_is_counted_and_gone_on_after(tmp_path, monkeypatch):
    (tmp_path / "dies.py").write_text(
        "import sys, os\nfor n in range(int(sys.argv[2]), int(sys.argv[3])):\n"
        '    os.abort() if n == 3 else print(\'{"kind": "k", "failure": ""}\', flush=True)\n'
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    tally = Tally("dies", "x")
    cases.follow("dies", tally, tmp_path / "work", 6, 0)
    assert (tally.tried, tally.survived, tally.counts) == (6, 5, {"k": 5, "crash": 1})
    assert "case 3 of seed 0: exit code -6" in tally.failures[0]


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory) -> tuple[Path, list[corpus.Bad]]:
    folder = tmp_path_factory.mktemp("corpus") / "train"
    crafted = corpus.write_crafted(folder, len(CRAFTED), 3)
    return folder.parent, corpus.write_mutated(folder, 600, 3) + crafted + corpus.write_classics(folder, 3)


def test_the_corpus_has_every_format_and_every_kind_and_is_the_same_again(spoiled, tmp_path):
    made = corpus.every_format(3)
    forms = {name.split("-")[0] for name in made}
    assert forms >= {"JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "JPEG2000", "PPM", "QOI", "ICO", "EPS", "PDF"}
    assert forms >= {"HEIC", "JXL"}
    forms -= {"HEIC", "JXL"}  # by the plug-ins, which this process does not register
    assert len(forms) == len(Image.SAVE) - len({"BUFR", "GRIB", "HDF5", "WMF"} & set(Image.SAVE))
    folder, bad = spoiled
    assert len({one.name for one in bad}) == len(bad) and {one.kind for one in bad} >= {*corpus.MUTATIONS, *CRAFTED}
    for one in corpus.write_mutated(tmp_path / "train", 30, 3):
        assert (tmp_path / one.name).read_bytes() == (folder / one.name).read_bytes()


def test_every_picture_is_decoded_or_refused_in_one_line(spoiled):
    """What the campaign has `prepare` and `predict` do, by the functions that they call."""
    folder, bad = spoiled
    tree = open_tree(folder)
    skipped = dict(tree.skipped)
    names = set(tree.files())
    usable = 0
    for one in bad:
        if one.name not in names:
            assert skipped.get(ascii(one.name)[1:-1], skipped.get(one.name)) or os.path.isdir(folder / one.name)
            continue
        if one.kind.startswith("at the limit"):
            continue  # seconds each
        notes: list[str] = []
        try:
            check(tree.read(one.name), notes=notes)
        except BadImageError as error:
            assert one.usable in (None, False), one
            assert str(error) and "\n" not in str(error)
        else:
            usable += 1
            assert one.usable in (None, True) and (notes or not one.is_noted), one
    assert 50 < usable < len(bad) - 100


def test_time_and_memory_of_each_picture_alone(spoiled, tmp_path):
    """The campaign's bounds are held, and its meter sees what a picture takes."""
    folder, bad = spoiled
    names = [one.name for one in bad if one.kind.startswith("TIFF: ") or one.kind == "at the limit, 0"]
    found = decoding.measured(folder, [*names, "train/a pipe.jpg"], tmp_path)
    assert list(found) == names
    assert all(seconds < decoding.MOST_SECONDS and size < decoding.MOST_BYTES for seconds, size in found.values())
    seconds, size = found["train/at the limit, 0.png"]
    assert seconds > 0.1 and (size > 300 * 2**20 or not Path("/proc/self/clear_refs").exists())


def test_archives_with_hostile_entries(tmp_path):
    """The archive of the campaign is skipped entry by entry, each with its reason."""
    from faults import archives

    seen: dict[str, object] = {}

    def stop(command, work, *, timeout, stdin=b""):
        path = Path(command[command.index("--from") + 1])
        tree = open_tree(path)
        seen.update(tree.skipped)
        bomb = [name for name in tree.files() if name == "glasses/bomb.jpg"]
        seen["bomb"] = bomb and _refused(tree, bomb[0])
        return processes.Ended(1, 0.0, 0, "", "", True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archives, "run_command", stop)
        patch.setattr(archives, "_BOMB_BYTES", 2**24)
        patch.setattr(archives, "_HONEST_BYTES", 2**22)
        tally = Tally("pictures", "x")
        archives.run_zip(tmp_path, 3, tally)
    assert tally.failures and len(seen) == 10, seen
    assert "damaged" in str(seen["bomb"]) and "climbs out" in str(seen["../climbs.jpg"])


def _refused(tree, name: str) -> str:
    with pytest.raises(Exception) as caught:
        tree.read(name)
    return str(caught.value)


def test_a_pickle_that_is_run_would_be_seen_by_its_file(tmp_path):
    """The bare bytes of an attack, for who doubts them."""
    make = weight_files.hostile(tmp_path / "ran")["pickle: behind good weights"]
    content = make(np.random.RandomState(1))
    assert b"cos\nsystem\n" in content or zipfile.is_zipfile(io.BytesIO(content))
    assert pickle.PROTO in content
    with pytest.raises(UserError):
        from weights_conversion import read

        (tmp_path / "w.pth").write_bytes(content)
        read(tmp_path / "w.pth")
