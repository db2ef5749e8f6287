"""Makes the README's pictures of a trained run: python scripts/lab/make_images.py RUN [--out docs/images]

Drawn people with the answers, the curves, and the first screen of the report, which takes chromium: without it that one
is left as it is.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import tyro
from PIL import Image, ImageDraw, ImageFont

from facefeat_jax import Predictor, avatars
from facefeat_jax.prediction.answers import Prediction
from facefeat_jax.runs.run_folder import CURVES, REPORT
from facefeat_jax.system.main import run_and_exit
from facefeat_jax.system.progress import say
from facefeat_jax.system.text import format_accuracy

SEED = 20_000  # of pictures in no split of the data set, as scripts/draw_avatars.py draws them
_SIDE, _LINE, _COUNT = 180, 18, 5
_COLOURS = 256  # few are enough for drawings and pages, and make small files
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def people(run: Path, out: Path) -> Path:
    """Draws people and writes below each what the model says."""
    drawn = [avatars.draw(SEED, index).image for index in range(_COUNT)]
    answers = Predictor.from_run(run).predict(drawn)
    heads = len(answers[0].heads)
    sheet = Image.new("RGB", (_COUNT * (_SIDE + 8) - 8, _SIDE + heads * _LINE + 8), "white")
    canvas, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for number, (picture, answer) in enumerate(zip(drawn, answers, strict=True)):
        left = number * (_SIDE + 8)
        sheet.paste(picture.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), (left, 0))
        for line, text in enumerate(_lines(answer)):
            canvas.text((left + 2, _SIDE + 4 + line * _LINE), text, font=font, fill="black")
    return _saved(sheet, out / "people.png")


def _lines(answer: Prediction) -> list[str]:
    return [
        f"{task}: {'unsure' if head.unsure else head.label.replace('_', ' ')}, {format_accuracy(head.probability, 0)}"
        for task, head in answer.heads.items()
    ]


def curves(run: Path, out: Path) -> Path:
    """Writes a small copy of the run's curves."""
    with Image.open(run / CURVES) as picture:
        small = picture.convert("RGB")
    small.thumbnail((800, 800), Image.Resampling.LANCZOS)
    return _saved(small, out / "curves.png")


def report(run: Path, out: Path) -> Path | None:
    """Writes a small picture of the report's first screen; returns None where there is no browser."""
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        page = (run / REPORT).resolve().as_uri()
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1280,800", f"--screenshot={shot}"]
        subprocess.run([browser, *options, page], check=True, capture_output=True)
        with Image.open(shot) as picture:
            small = picture.convert("RGB")
    small.thumbnail((800, 800), Image.Resampling.LANCZOS)
    return _saved(small, out / "report.png")


def _saved(picture: Image.Image, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(_COLOURS).save(path, optimize=True)
    return path


def main(run: tyro.conf.Positional[Path], out: Path = Path("docs/images")) -> None:
    """Makes the three pictures."""
    for make in (people, curves, report):
        path = make(run, out)
        say(f"wrote {path}" if path else f"{make.__name__}: no chromium here, not made again")


if __name__ == "__main__":
    run_and_exit(lambda: tyro.cli(main))
