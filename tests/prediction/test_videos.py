"""Videos: every n-th frame is a picture with a time, and a labelled video comes of `--draw`."""

from __future__ import annotations

import io
import json
import shutil
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from facefeat_jax import avatars
from facefeat_jax.cli import main
from facefeat_jax.data.images import BadImageError
from facefeat_jax.prediction import _videos as videos

av = pytest.importorskip("av", reason="the extra `video` is not installed")

RATE, COUNT = 25, 40


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> str:
    """A video of drawn people; the brightness of its first row says which frame it is."""
    path = tmp_path_factory.mktemp("film") / "people.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 96, 96, "yuv420p", 20_000_000
        people = [avatars.draw(7, index).image for index in range(4)]
        for number in range(COUNT):
            pixels = np.asarray(people[number // 10]).copy()
            pixels[:16] = 6 * number
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return str(path)


def number_of(content: bytes) -> int:
    return round(np.asarray(Image.open(io.BytesIO(content)))[:8].mean() / 6)


def test_every_nth_frame_has_its_time_and_its_content(film):
    names = videos.frames(film, 8)
    assert names == [f"{film}#t={number / RATE:.3f}" for number in range(0, COUNT, 8)]
    films = videos.Films()
    assert [number_of(films.read(name)) for name in names] == [0, 8, 16, 24, 32]
    everything = videos.frames(film, 1)
    for number in (20, 18, 19, 3, 39, 0):  # out of order too
        assert number_of(films.read(everything[number])) == number
    with pytest.raises(BadImageError, match="no frame at"):
        films.read(f"{film}#t=0.010")
    films.close()


def test_frames_are_answered_and_drawn(film, trained_run, tmp_path, capsys):
    out, drawn = tmp_path / "answers.jsonl", tmp_path / "labelled"
    assert main(["predict", str(trained_run), film, "--every", "10", "--out", str(out), "--draw", str(drawn)]) == 0
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert [answer["time"] for answer in answers] == [0.0, 0.4, 0.8, 1.2] and all("heads" in one for one in answers)
    assert answers[1]["file"] == f"{film}#t=0.400"
    assert f"wrote {drawn / 'people-labelled.mp4'} (4 frames)" in capsys.readouterr().err
    with av.open(str(drawn / "people-labelled.mp4")) as container:
        found = [(round(float(frame.time), 2), frame.width) for frame in container.decode(video=0)]
        # Frames of 96 pixels are enlarged, so that there is room for words.
        assert found == [(0.0, 288), (0.4, 288), (0.8, 288), (1.2, 288)]


def test_drawing_beside_the_video_keeps_it_and_older_files(film, trained_run, tmp_path, monkeypatch, capsys):
    """Of a short film one frame is taken, and read twice; the name has a colon; the same film comes twice."""
    monkeypatch.chdir(tmp_path)
    names = ["at 12:30.mp4", "at 12:30-labelled.mp4"]
    for name in names:
        shutil.copy(film, name)
    before = [(tmp_path / name).read_bytes() for name in names]
    assert main(["predict", str(trained_run), names[0], names[0], "--every", "1000", "--draw", "."]) == 0
    assert [(tmp_path / name).read_bytes() for name in names] == before
    assert "wrote at 12:30-labelled-2.mp4 (1 frame)" in capsys.readouterr().err


def test_frames_after_a_missing_one_or_a_damaged_part_are_read(film):
    films, names = videos.Films(), videos.frames(film, 1)
    with pytest.raises(BadImageError, match="no frame at"):
        films.read(f"{film}#t=0.010")
    assert [number_of(films.read(name)) for name in names[1:5]] == [1, 2, 3, 4]

    def damaged(*_):
        raise av.error.InvalidDataError(1, "damaged")
        yield

    films._frames = damaged()
    with pytest.raises(BadImageError, match="can't be decoded"):
        films.read(names[10])
    assert number_of(films.read(names[11])) == 11
    films.close()


def test_what_is_no_video_and_playlists_are_refused(tmp_path, film):
    for name, content in (("a.mp4", b"junk" * 100), ("b.mov", b""), ("c.avi", f"#EXTM3U\n{film}\n".encode())):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadImageError, match="can't be read"):
            videos.frames(str(tmp_path / name), 1)


@pytest.mark.parametrize("name", ["a.png#t=1.000", "film.mp4", "film.mp4#t=1", "#t=1.000"])
def test_other_names_are_no_frames(name):
    assert videos.frame_of(name) is None
