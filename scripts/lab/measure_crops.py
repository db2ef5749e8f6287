"""Measures faces and crops on prepared pictures: misses, false finds, frames, and what each head makes of each crop.

    python scripts/lab/measure_crops.py RUN --face-model YUNET.onnx --to docs/benchmarks/crops.md

RUN is a trained run on the three data sets. The validation pictures of the gender and glasses sets show one face each,
in its middle: none found there is a miss, and a find elsewhere a false one. In shop photographs, where some people are
shown without a head, finds are counted only; `--sheet DIR` writes them as contact sheets to be looked at.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image, ImageDraw

from common import write_results
from facefeat_jax.data.dataset import Split, default_data_dir, open_split
from facefeat_jax.data.images import decode
from facefeat_jax.prediction._faces import HaarFinder, open_finder
from facefeat_jax.prediction.crops import FRAMES, WHOLE, Box, crop
from facefeat_jax.prediction.predictor import Predictor
from facefeat_jax.runs.run_folder import read_config
from facefeat_jax.system.environment import record, record_lines
from facefeat_jax.system.main import run_and_exit
from facefeat_jax.system.markdown import table
from facefeat_jax.system.progress import Bar

_COUNTS = ("pictures", "missed", "false", "none", "one", "more")
_CROPS = (WHOLE, *FRAMES, "whole, all pictures")
# What is measured where: the head that the data set labels.
_SETS = {"fairface": "gender", "glasses": "glasses", "apparel": "shirt"}

_PAGE = """\
# Faces and crops

This page measures how many faces OpenCV's Haar cascades and YuNet find in the validation pictures, how each data set
frames a face, and how accurate each head is on each crop. The pictures are not part of the project: faces in FairFace's
layout (UTKFace), faces with and without glasses (CelebA), and shop photographs.

The run: {trained}.

{made}

## Misses and false finds

Each picture of a face set shows one face in its middle. If none is found there, that is a miss; a find elsewhere, or a
second one, is false. Shop photographs may show a person without a head, so for them the table only counts finds.

{finding}

`{used}` is what `predict --faces` uses.{yunet}

## How the sets are framed

The table shows the median distance of the picture's sides from the centre of the face box, in widths and heights of the
box, over pictures with one find. `FRAMES` in `facefeat_jax/prediction/crops.py` uses these values.

{framing}

## Accuracy on each crop

Each row covers the pictures in which its finder found one face and every crop of the row could be made, so rows of two
finders are not of quite the same pictures. `whole` is the picture as the head was trained on it: the true crop. In the
rows *in a scene*, each shop photograph is placed somewhere in a grey picture two and a half times as wide and high, and
the face is found there. This imitates a photograph of a scene rather than of a shirt.

{accuracy}
"""


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    data_dir: Path | None = None
    """Where the prepared data sets lie; the default is $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    limit: int | None = None
    """Only this many pictures of each set."""
    face_model: Path | None = None
    """A YuNet ONNX file, measured beside OpenCV's Haar cascades."""
    sheet: Path | None = None
    """Folder for contact sheets of what was found in shop photographs; never put them into the project."""
    to: Path | None = None
    """The page to write; the figures go beside it as JSON."""


def finders(model: Path | None) -> dict[str, Callable[[np.ndarray], list[Box]]]:
    """Returns the ways of finding faces that are compared; the first is the one that `predict` uses."""
    found: dict[str, Callable[[np.ndarray], list[Box]]] = {
        "alt2": open_finder(),
        "alt2, 2 neighbours": HaarFinder(neighbours=2),
        "default": HaarFinder("haarcascade_frontalface_default.xml"),
    }
    return {**found, model.stem: open_finder(model)} if model else found


def is_true(box: Box, size: tuple[int, int]) -> bool:
    """Returns whether a find lies where these sets have their face: about the middle, at a good part of the width."""
    width, height = size
    x, y = (box.left + box.right) / 2 / width, (box.top + box.bottom) / 2 / height
    return 0.3 < x < 0.7 and 0.25 < y < 0.75 and box.width > 0.35 * width


def measure_finding(pictures: list[Image.Image], find: Callable[[np.ndarray], list[Box]]) -> tuple[dict, list]:
    """Returns counts for pictures of one face each, and the boxes of each picture."""
    boxes = [find(np.asarray(picture)) for picture in pictures]
    true = [sum(is_true(box, p.size) for box in found) for p, found in zip(pictures, boxes, strict=True)]
    return {
        "pictures": len(pictures),
        "none": sum(not found for found in boxes),
        "one": sum(len(found) == 1 for found in boxes),
        "more": sum(len(found) > 1 for found in boxes),
        "missed": sum(count == 0 for count in true),
        "false": sum(len(found) - min(count, 1) for found, count in zip(boxes, true, strict=True)),
    }, boxes


def frame_of(pictures: list[Image.Image], boxes: list[list[Box]]) -> dict[str, float]:
    """Returns the median frame of pictures in which one face was found: how the set is framed around it."""
    rows = []
    for picture, found in zip(pictures, boxes, strict=True):
        if len(found) == 1:
            box = found[0]
            x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
            rows.append(
                (x / box.width, y / box.height, (picture.width - x) / box.width, (picture.height - y) / box.height)
            )
    left, top, right, bottom = np.median(rows, axis=0)
    return {"left": left, "top": top, "right": right, "bottom": bottom, "n": len(rows)}


def measure_crops(
    predictor: Predictor, split: Split, task: str, rows: np.ndarray, pictures: list[Image.Image], boxes: list[list[Box]]
) -> dict[str, Any]:
    """Returns the accuracy of a head on each crop, over pictures with one face found and all crops in them."""
    names = split.classes[task]
    crops = {}
    for frame in (WHOLE, *FRAMES):
        crops[frame] = [
            crop(picture, found[0], frame) if len(found) == 1 else None
            for picture, found in zip(pictures, boxes, strict=True)
        ]
    # Bodies are not in pictures of faces: those are compared on what there is.
    frames = [frame for frame in crops if sum(part is not None for part in crops[frame]) > len(pictures) / 4]
    usable = [number for number in range(len(pictures)) if all(crops[frame][number] is not None for frame in frames)]
    figures: dict[str, Any] = {"n": len(usable)}
    for frame in frames:
        predictions = predictor.predict([crops[frame][number] for number in usable])
        right = [
            prediction.heads[task].label == names[split.labels[task][rows[number]]]
            for prediction, number in zip(predictions, usable, strict=True)
        ]
        figures[frame] = float(np.mean(right))
    everything = predictor.predict(pictures)
    figures["whole, all pictures"] = float(
        np.mean(
            [p.heads[task].label == names[split.labels[task][row]] for p, row in zip(everything, rows, strict=True)]
        )
    )
    return figures


def in_scene(picture: Image.Image, number: int) -> Image.Image:
    """Returns a picture as a small part of a large grey one, at a place that depends on its number."""
    width, height = picture.size
    scene = Image.new("RGB", (round(2.5 * width), round(2.5 * height)), (128, 128, 128))
    places = np.random.RandomState(number)
    scene.paste(picture, (places.randint(scene.width - width + 1), places.randint(scene.height - height + 1)))
    return scene


def contact_sheets(pictures: list[Image.Image], boxes: list[list[Box]], folder: Path) -> None:
    """Writes pictures with the boxes drawn in, 60 a sheet."""
    folder.mkdir(parents=True, exist_ok=True)
    side, columns = 150, 10
    for start in range(0, len(pictures), 6 * columns):
        sheet = Image.new("RGB", (columns * side, 6 * side), "white")
        chosen = zip(pictures[start : start + 6 * columns], boxes[start:], strict=False)
        for place, (picture, found) in enumerate(chosen):
            small = picture.copy()
            canvas = ImageDraw.Draw(small)
            for box in found:
                line = max(2, small.width // 60)
                canvas.rectangle((box.left, box.top, box.right, box.bottom), outline="red", width=line)
            small.thumbnail((side, side))
            sheet.paste(small, (place % columns * side, place // columns * side))
        sheet.save(folder / f"{start:04}.png")


def page(results: dict[str, Any]) -> str:
    """Returns the figures as Markdown."""
    finding = table(
        ["pictures", "finder", "number", "missed", "false finds", "none found", "one", "more"],
        [
            [source, name, *(one.get(key, "") for key in _COUNTS)]
            for source, by_name in results["finding"].items()
            for name, one in by_name.items()
        ],
        2,
    )
    framing = table(
        ["pictures", "left", "top", "right", "bottom", "number"],
        [
            [source, *(f"{one[side]:.2f}" for side in ("left", "top", "right", "bottom")), f"{one['n']}"]
            for source, one in results["frames"].items()
        ],
    )
    accuracy = table(
        ["head", "finder", "pictures", *_CROPS],
        [
            [task, finder, f"{one['n']}", *(f"{one[name]:.3f}" if name in one else "" for name in _CROPS)]
            for task, by_finder in results["crops"].items()
            for finder, one in by_finder.items()
        ],
        2,
    )
    used = next(iter(results["finding"]["fairface"]))
    return _PAGE.format(
        trained=results["trained"],
        made="\n".join(record_lines(results)),
        finding="\n".join(finding),
        used=used,
        yunet=f" `{results['face_model']}` is a file of OpenCV's YuNet." if results["face_model"] else "",
        framing="\n".join(framing),
        accuracy="\n".join(accuracy),
    )


def main() -> int:
    """Measures, prints and writes the figures."""
    arguments = tyro.cli(Arguments, description=__doc__)
    predictor = Predictor.from_run(arguments.run)
    data_dir = arguments.data_dir or default_data_dir()
    config = read_config(arguments.run)
    size, epochs, weights = config.data.image_size, config.batches.epochs, config.model.weights
    results: dict[str, Any] = {
        "run": arguments.run.name,
        "trained": f"all heads, {size} px, {epochs} epochs, from {weights} weights",
        "face_model": arguments.face_model.stem if arguments.face_model else None,
        "finding": {},
        "frames": {},
        "crops": {},
    }
    for source, task in _SETS.items():
        split = open_split(source, "val", data_dir)
        rows = np.linspace(0, len(split) - 1, min(len(split), arguments.limit or len(split))).astype(int)
        pictures = [decode(split.read(int(row)), predictor.spec.decode) for row in rows]
        for number, (name, find) in enumerate(finders(arguments.face_model).items()):
            with Bar(f"{source}: {name}", len(pictures)) as bar:
                found, boxes = measure_finding(pictures, find)
                bar.advance(len(pictures))
            if source == "apparel":
                found = {key: value for key, value in found.items() if key not in ("missed", "false")}
            results["finding"].setdefault(source, {})[name] = found
            if number == 0:
                results["frames"][source] = frame_of(pictures, boxes)
            if number == 0 or name == results["face_model"]:
                made = measure_crops(predictor, split, task, rows, pictures, boxes)
                results["crops"].setdefault(task, {})[name] = made
                if source == "apparel":
                    scenes = [in_scene(picture, place) for place, picture in enumerate(pictures)]
                    found_there = [find(np.asarray(scene)) for scene in scenes]
                    made = measure_crops(predictor, split, task, rows, scenes, found_there)
                    results["crops"].setdefault("shirt, in a scene", {})[name] = made
            if number == 0 and arguments.sheet:
                contact_sheets(pictures, boxes, arguments.sheet / source)
    model = f" --face-model {arguments.face_model.name}" if arguments.face_model else ""
    command = f"python scripts/lab/measure_crops.py {arguments.run.name}{model} --to docs/benchmarks/crops.md"
    results |= record(command, ("opencv-python-headless", "jax", "flax", "pillow"))
    print(json.dumps(results, indent=2, default=float))
    write_results(page(results), results, arguments.to)
    return 0


if __name__ == "__main__":
    run_and_exit(main)
