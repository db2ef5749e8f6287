"""Made downloads, smaller copies of real ones, and the listing of their files."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import weights_conversion
from benchmarking import synthetic
from benchmarking.pictures import Listing, read_listing, write_listing
from benchmarking.subset import write_subset
from benchmarking.workplace import Workplace
from facefeat_jax.data.dataset import open_split
from facefeat_jax.data.prepare import prepare
from facefeat_jax.system.errors import UserError

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three data sets, made small: the fewest pictures there can be, 32 px."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SIDE", 32)
        patch.setattr(synthetic, "_NUM_CANVASES", 3)
        synthetic._canvases.cache_clear()
        synthetic.write_downloads(folder, 0.0001)
        synthetic._canvases.cache_clear()
    return folder


def _sizes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fraction: float) -> dict[str, int]:
    """Returns how many files there would be of each kind."""
    written: list[Path] = []
    monkeypatch.setattr(synthetic, "_write", lambda files, make, advance: written.extend(files))
    total = synthetic.write_downloads(tmp_path, fraction)
    assert total == len(set(written))
    kinds = ("fairface/train", "fairface/val", "glasses/Images/glasses", "glasses/Images/no_glasses", "apparel")
    return {kind: sum(str(file.relative_to(tmp_path)).startswith(f"{kind}/") for file in written) for kind in kinds}


def test_the_full_size_is_the_baselines(monkeypatch, tmp_path):
    assert _sizes(monkeypatch, tmp_path, 1.0) == {
        "fairface/train": 33_600,
        "fairface/val": 8_196,
        "glasses/Images/glasses": 2_769,
        "glasses/Images/no_glasses": 2_151,
        "apparel": 6_955,
    }


def test_a_fraction_is_a_fraction_of_each(monkeypatch, tmp_path):
    assert _sizes(monkeypatch, tmp_path, 0.1) == {
        "fairface/train": 3_360,
        "fairface/val": 820,
        "glasses/Images/glasses": 277,
        "glasses/Images/no_glasses": 215,
        "apparel": 696,
    }


@pytest.mark.parametrize("fraction", [0, -1, 5, float("nan")])
def test_a_fraction_that_is_none_is_refused(tmp_path, fraction):
    with pytest.raises(UserError, match="--synthetic"):
        synthetic.write_downloads(tmp_path, fraction)


def test_a_picture_is_a_function_of_its_number_and_costs_what_a_photograph_costs(monkeypatch):
    monkeypatch.setattr(synthetic, "_NUM_CANVASES", 3)
    synthetic._canvases.cache_clear()
    try:
        one, other = (synthetic.jpeg(number, synthetic.SIDE) for number in (1, 2))
        assert one == synthetic.jpeg(1, synthetic.SIDE) != other
    finally:
        synthetic._canvases.cache_clear()
    for data in (one, other):
        image = Image.open(io.BytesIO(data))
        assert (image.size, image.mode, image.format) == ((224, 224), "RGB", "JPEG")
        assert 12_000 < len(data) < 28_000
        pixels = np.asarray(image).astype(float)
        # Neighbours are alike, as in photographs, and there is colour.
        assert np.abs(np.diff(pixels, axis=0)).mean() < 0.4 * pixels.std()
        assert np.abs(pixels[..., 0] - pixels[..., 2]).mean() > 3


def test_the_made_sets_prepare_without_a_loss_and_are_listed_by_their_files(downloads, tmp_path):
    for name, task in (("fairface", "gender"), ("glasses", "glasses"), ("apparel", "shirt")):
        summary = prepare(name, downloads / name, tmp_path / "data", workers=1, progress=False)
        assert not summary.left_out
        assert all(min(counts[task].values()) > 0 for counts in summary.classes.values() if name == "fairface")
    listing = write_listing(tmp_path / "listing.json", downloads, tmp_path / "data")
    assert listing == Listing(
        {
            s: {t: [tuple(p) for p in of] for t, of in tasks.items()}
            for s, tasks in read_listing(tmp_path / "listing.json").pictures.items()
        }
    )
    for split in ("train", "val"):
        for name, task in (("fairface", "gender"), ("glasses", "glasses"), ("apparel", "shirt")):
            opened = open_split(name, split, tmp_path / "data")
            listed = listing.pictures[split][task]
            assert [label for _, label in listed] == opened.labels[task].tolist()
            few = range(min(3, len(listed)))
            assert [Path(listed[n][0]).read_bytes() for n in few] == [opened.read(n) for n in few]
    files = listing.files("train")
    assert len(files) == len(set(files)) == sum(map(len, listing.pictures["train"].values()))
    # Those that are taken first are of all sets.
    assert {part for file in files[:6] for part in file.parts} >= {"fairface", "glasses", "apparel"}


def test_many_faces_take_little_disk(tmp_path):
    synthetic.write_faces(tmp_path, train=1100, val=3, side=16)
    summary = prepare("fairface", tmp_path / "fairface", tmp_path / "data", workers=1, progress=False)
    assert summary.kept == {"train": 1100, "val": 3}
    inodes = {file.stat().st_ino for file in (tmp_path / "fairface" / "train").iterdir()}
    assert len(inodes) == 200


def _by_class(name: str, download: Path, data_dir: Path) -> dict[str, int]:
    """Returns how many pictures of each class a prepared download has, both splits together."""
    summary = prepare(name, download, data_dir, workers=1, progress=False)
    (task,) = summary.classes["train"]
    return {one: count + summary.classes["val"][task][one] for one, count in summary.classes["train"][task].items()}


def test_a_subset_is_even_and_prepares(downloads, tmp_path):
    count, size = write_subset(downloads, tmp_path / "half", fraction=0.5)
    kept = {}
    for name in ("fairface", "glasses", "apparel"):
        whole = _by_class(name, downloads / name, tmp_path / "data")
        half = _by_class(name, tmp_path / "half" / name, tmp_path / "half data")
        assert all(abs(half[one] - whole[one] / 2) <= 1.5 for one in whole), (whole, half)
        kept[name] = sum(half.values())
    assert kept == {"fairface": 70, "glasses": 6, "apparel": 38}
    assert sum(kept.values()) == count
    assert size == sum(file.stat().st_size for file in (tmp_path / "half").rglob("*.jpg"))


def test_a_subset_keeps_below_its_bytes(downloads, tmp_path):
    _, size = write_subset(downloads, tmp_path / "all")
    _, smaller = write_subset(downloads, tmp_path / "some", max_bytes=size // 2)
    assert size / 4 < smaller <= size // 2
    with pytest.raises(UserError, match="allow more"):
        write_subset(downloads, tmp_path / "none", max_bytes=100)


def test_a_subset_is_not_written_where_git_takes_it_in(downloads, tmp_path):
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    with pytest.raises(UserError, match="git would take"):
        write_subset(downloads, tmp_path / "pictures" / "here", fraction=0.1)
    assert not (tmp_path / "pictures").exists()
    (tmp_path / ".gitignore").write_text("/pictures/\n")
    write_subset(downloads, tmp_path / "pictures" / "here", fraction=0.1)
    with pytest.raises(UserError, match="not an empty folder"):
        write_subset(downloads, tmp_path / "pictures" / "here", fraction=0.1)
    with pytest.raises(UserError, match="fairface does not exist"):
        write_subset(downloads / "fairface", tmp_path / "pictures" / "there")


def test_the_workplace_lays_out_and_prepares(downloads, tmp_path):
    place = Workplace(tmp_path / "work")
    place.make()
    about = place.fill(downloads=downloads, fraction=1.0)
    assert about["kind"] == "real" and about["counts"]["train"]["gender"] == 70
    assert set(about["prepare_seconds"]) == {"fairface glasses apparel"}  # one call
    assert min(about["prepare_seconds"].values()) > 0.1
    place.fill_weights()
    assert len(weights_conversion.read(place.weights)) == 120  # torchvision's names, without its classifier
    place.remove()
    assert sorted(path.name for path in place.folder.iterdir()) == ["listing.json", "workers.log"]
    with pytest.raises(UserError, match="not empty"):  # it would be deleted at the end
        place.make()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--out"):
        Workplace(tmp_path / "file" / "work").make()
