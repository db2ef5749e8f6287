"""The report, the curves and the tables of a run, from made run folders."""

from __future__ import annotations

import base64
import contextlib
import csv
import dataclasses
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tyro
import yaml
from PIL import Image

from facefeat_jax.config import TrainConfig, apply_smoke, load_recipe
from facefeat_jax.data.examples import count_data
from facefeat_jax.data.images import decode_resized
from facefeat_jax.data.pixels import PixelFormat
from facefeat_jax.evaluation.assessment import assess, write_assessment
from facefeat_jax.evaluation.calibration import Calibration, HeadCalibration, calibrate
from facefeat_jax.evaluation.metrics import HeadResult
from facefeat_jax.evaluation.scores import METRICS
from facefeat_jax.evaluation.slices import Slicing
from facefeat_jax.reporting import curves
from facefeat_jax.reporting._diagrams import reliability_svg, worth_drawing
from facefeat_jax.reporting._report_sections import choose_examples
from facefeat_jax.reporting.model_card import write_model_card
from facefeat_jax.reporting.report import command_line, write_report
from facefeat_jax.reporting.samples import Sample, training_samples
from facefeat_jax.reporting.table import gap_figures, gap_lines, heads_table, results_table, scores_table
from facefeat_jax.runs.run_folder import write_json
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.tables import from_csv
from facefeat_jax.system.text import format_accuracy, format_loss, one_line

from ..made import encoded, noise

TASKS = ("gender", "glasses", "shirt")
PIXELS = PixelFormat(16, "upright", "bilinear")


def make_run(folder: Path, config: TrainConfig, *, steps: int = 60, n: int = 984, **results: Any) -> dict[str, Any]:
    """Writes what a training with this config would have logged and found, without training; returns the results."""
    random = np.random.RandomState(0)
    lines: list[dict[str, Any]] = []
    history: list[dict[str, Any]] = []
    step = 0
    tasks_of_run, sequential = config.data.tasks, config.batches.schedule == "sequential"
    passes = [(task,) for task in tasks_of_run] if sequential else [tasks_of_run]
    for epoch in range(1, config.batches.epochs + 1):
        for tasks in passes:
            for number in range(steps):
                step += 1
                done = epoch - 1 + number / steps
                figures = {
                    task: {
                        "loss": float(
                            (2.1 if task == "shirt" else 0.7) * np.exp(-0.9 * done) * random.uniform(0.6, 1.4)
                        ),
                        "accuracy": float(min(1.0, 0.5 + 0.1 * done)),
                    }
                    for task in tasks
                }
                head = {"event": "train", "step": step, "epoch": epoch}
                lines.append({**head, "learning_rate": config.optimizer.learning_rate, "tasks": figures})
            lines.append(
                {"event": "pass", "step": step, "epoch": epoch, "seconds": 4.0, "images_per_s": 250.0}
                | {"tasks": list(tasks)}
            )
            found = {
                task: dataclasses.asdict(HeadResult(1 - 0.3 / epoch, 0.5 / epoch, 0.51 / epoch, n)) for task in tasks
            }
            history += [{"step": step, "epoch": epoch, "task": task, **found[task]} for task in tasks]
            lines.append({"event": "validation", "step": step, "epoch": epoch, "tasks": found})
    last = {entry["task"]: {k: entry[k] for k in ("accuracy", "loss", "loss_of_batches", "n")} for entry in history}
    if sequential:
        for task in tasks_of_run[:-1]:
            last[task] = dataclasses.asdict(HeadResult(0.502, 1.25, 1.26, n))
    made = {
        "heads": last,
        "history": history,
        "steps": step,
        "seconds": 185.4,
        "environment": {"python": "3.11.7", "jax": "0.10.2", "devices": "cpu x1"},
        "finished": "2026-03-05T14:07:09+00:00",
        **results,
    }
    write_json(folder / "config.json", config.to_json())
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_json(folder / "results.json", made)
    return made


def make_samples(count: int = 24, size: int = 64) -> list[Sample]:
    random = np.random.RandomState(0)
    return [
        Sample(random.randint(0, 256, (size, size, 3)).astype(np.uint8), f"female, no glasses, red {number}")
        for number in range(count)
    ]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    make_run(tmp_path / "mixed", load_recipe("avatars").replace(epochs=5))
    return tmp_path / "mixed"


@pytest.fixture
def sequential(tmp_path: Path) -> Path:
    make_run(tmp_path / "sequential", load_recipe("baseline").replace(epochs=5))
    return tmp_path / "sequential"


class Page(HTMLParser):
    """What is on a page: elements with their attributes, and the text of each table cell and paragraph."""

    VOID = ("meta", "link", "img", "br")
    SVG_ALONE = ("path", "use", "circle", "rect", "image", "line")

    def __init__(self, page: Path):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self.source = page.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data.strip()

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def squeezed(text: str) -> str:
    return " ".join(text.split())


def test_results_of_mixed(mixed: Path) -> None:
    path = write_report(mixed)
    assert path == mixed / "report.html"
    page = Page(path)
    assert not page.open
    assert page.tables[0] == [
        ["head", "accuracy", "loss", "pictures"],
        *([task, "94.0%", "0.1000", "984"] for task in TASKS),
    ]
    assert "own pass" not in page.text
    assert "5 March 2026, 14:07 UTC" in page.text
    assert "300 steps in 3 min 5 s; 250 images/s" in squeezed(page.text)


def test_results_of_sequential_have_both_figures(sequential: Path) -> None:
    page = Page(write_report(sequential))
    assert page.tables[0] == [
        ["", "final weights", "right after own pass", ""],
        ["head", "accuracy", "loss", "accuracy", "loss", "pictures"],
        ["gender", "50.2%", "1.2500", "94.0%", "0.1000", "984"],
        ["glasses", "50.2%", "1.2500", "94.0%", "0.1000", "984"],
        ["shirt", "94.0%", "0.1000", "94.0%", "0.1000", "984"],
    ]
    text = squeezed(page.text)
    assert "the trunk continued to train" in text
    assert "gender 0.1020, glasses 0.1020, shirt 0.1020." in text
    # The hollow marks are told to those who don't see them.
    alts = [str(attributes["aria-label"]) for attributes in page.all("div") if attributes.get("role") == "img"]
    assert any(re.search("gender from 70.0% .*94.0% .*5, 50.2% with the final", a) for a in alts)


def test_page_has_everything(mixed: Path) -> None:
    results = json.loads((mixed / "results.json").read_text())
    results["data"] = {
        split: {"pictures": n, "classes": {"glasses": {"no_glasses": n - 7, "glasses": 7}}}
        for split, n in (("train", 4096), ("val", 1024))
    }
    write_json(mixed / "results.json", results)
    page = Page(write_report(mixed, samples=make_samples()))
    assert [squeezed(h) for h in re.findall(r"<h2[^>]*>(.*?)</h2>", page.source)] == [
        "Results",
        "Training",
        "Validation",
        "Data",
        "Command",
        "Configuration",
        "Environment",
    ]
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page.source)
    assert captions[:5] == [*(f"{task}: training loss" for task in TASKS), "validation accuracy", "validation loss"]
    assert len(page.all("img")) == 24
    cells = {row[0]: row[1:] for table in page.tables for row in table if row}
    counts = next(table for table in page.tables if ["head", "class", "train", "val"] in table)
    assert counts[1:] == [
        ["glasses", "no glasses", "4,089", "1,017"],
        ["glasses", "7", "7"],
        ["all pictures", "4,096", "1,024"],
    ]
    assert cells["5"] == ["94.0%", "0.1000"] * 3
    assert cells["learning_rate"] == ["0.001"]
    assert cells["sources"] == ["avatars"]
    assert cells["limit"] == ["not set"]
    assert cells["jax"] == ["0.10.2"]
    assert "facefeat train avatars" in page.text
    assert "nothing about people" in page.text


def test_pictures_are_inlined_as_given(mixed: Path) -> None:
    samples = [*make_samples(2), *make_samples(1, size=400)]
    images = Page(write_report(mixed, samples=samples)).all("img")
    for sample, image in zip(samples[:2], images[:2], strict=True):
        kind, data = str(image["src"]).split(",", 1)
        assert kind == "data:image/png;base64"
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), sample.image)
        assert image["alt"] == f"Training picture labelled {sample.caption}"
    kind, data = str(images[2]["src"]).split(",", 1)
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (256, 256)


def test_page_asks_for_nothing_outside(sequential: Path) -> None:
    page = Page(write_report(sequential, samples=make_samples(3)))
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
                assert str(value).startswith(("data:", "#")), f"<{tag} {name}={value}>"
    assert not re.search(r"@import|url\((?!#)|https?://", page.source)
    policies = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_page_is_accessible(sequential: Path) -> None:
    page = Page(write_report(sequential, samples=make_samples(3)))
    assert page.all("html") == [{"lang": "en"}]
    assert any(m.get("name") == "viewport" for m in page.all("meta"))
    assert all(image.get("alt") for image in page.all("img"))
    assert all(svg.get("aria-hidden") == "true" for svg in page.all("svg"))
    drawings = [attributes for attributes in page.all("div") if attributes.get("class") == "drawing"]
    assert len(drawings) == 5
    assert all(d["role"] == "img" and len(str(d["aria-label"])) > 40 for d in drawings)
    assert all(th.get("scope") for th in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    uses = [str(attributes["href"])[1:] for attributes in page.all("use")]
    clips = re.findall(r"url\(#([^)]+)\)", page.source)
    assert uses and clips and set(uses) | set(clips) <= set(ids)


def luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    darker, lighter = sorted((luminance(a), luminance(b)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast(sequential: Path, scheme: int) -> None:
    source = Page(write_report(sequential)).source
    palettes = [dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in source.split("color-scheme: dark")[-2:]]
    colors = palettes[scheme]
    for background in (colors["page"], colors["panel"]):
        assert contrast(colors["ink"], background) >= 7
        assert contrast(colors["soft"], background) >= 4.5
        for pair in curves.SERIES_COLORS:
            assert contrast(pair[scheme], background) >= 3


def test_figures_take_the_colours_of_the_page(mixed: Path) -> None:
    drawn = curves.training_loss_svg(curves.read_curves(mixed)["glasses"], 1)
    assert "var(--series-1)" in drawn and "currentColor" in drawn
    # Whatever is written out would be invisible on one of the backgrounds.
    assert not re.findall(r"(?:fill|stroke): (?!none|currentColor|var\()[^;\"]+", re.sub(r"stroke-[a-z]+:", "", drawn))
    assert "<text" in drawn and "iteration" in drawn
    assert drawn == curves.training_loss_svg(curves.read_curves(mixed)["glasses"], 1)


def test_names_are_escaped(mixed: Path) -> None:
    evil = '<script>alert("x")</script>'
    results = json.loads((mixed / "results.json").read_text())
    results["environment"]["cpu"] = evil
    results["command"] = evil
    results["data"] = {"train": {"pictures": 1, "classes": {"gender": {evil: 1}}}}
    write_json(mixed / "results.json", results)
    config = load_recipe("avatars").replace(weights=evil, recipe=evil)
    write_json(mixed / "config.json", config.to_json())
    page = Page(write_report(mixed, samples=[Sample(np.zeros((4, 4, 3), np.uint8), f'" onerror="x {evil}')]))
    assert not page.all("script")
    assert page.text.count(evil) >= 6
    assert set(page.all("img")[0]) == {"src", "alt"}


def test_cut_last_line(mixed: Path) -> None:
    path = mixed / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"event": "train", "st')
    write_report(mixed)
    first = (mixed / "report.html").read_text()
    path.write_text(whole)
    write_report(mixed)
    assert (mixed / "report.html").read_text() == first


def test_interrupted_run(mixed: Path) -> None:
    (mixed / "results.json").unlink()
    with pytest.raises(UserError, match=r"no results\.json .*--resume"):
        write_report(mixed)
    assert not (mixed / "report.html").exists()
    # How far it has come can be looked at.
    assert curves.write_curves(mixed).exists()


def test_run_that_was_not_trained(mixed: Path) -> None:
    (mixed / "results.json").unlink()
    (mixed / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match="not trained here"):
        write_report(mixed)
    with pytest.raises(UserError, match=r"no metrics\.jsonl"):
        curves.write_curves(mixed)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"heads": 3}', '{"heads": {"gender": {}}, "history": []}'])
def test_damaged_results(mixed: Path, content: str) -> None:
    (mixed / "results.json").write_text(content)
    with pytest.raises(UserError, match=r"results\.json can't be read"):
        write_report(mixed)


def test_one_flipped_bit_of_the_results_is_found(trained_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_run, run, ignore=shutil.ignore_patterns("checkpoints"))
    whole = (run / "results.json").read_bytes()
    write_report(run)
    page = (run / "report.html").read_bytes()
    random = np.random.RandomState(3)
    for place in [whole.index(b'"accuracy": 0.') + 14, *random.randint(0, len(whole), 30)]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << random.randint(8)
        (run / "results.json").write_bytes(flipped)
        try:  # a blank between two values changes none
            same = json.loads(flipped) == json.loads(whole)
        except ValueError:
            same = False
        if not same:
            with pytest.raises(UserError, match=r"results\.json can't be read"):
                write_report(run)
    assert (run / "report.html").read_bytes() == page


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no training step"),
        ('{"event": "train"}\n', "can't be read"),
        ("3\n", "can't be read"),
        ('{"event": "train", "step": 1, "epoch": 1, "tasks": {"gender": {"loss": 1}}}\n', "not of a training log"),
        ("\x00\xff", "no training step"),
    ],
)
def test_damaged_log(mixed: Path, content: str, message: str) -> None:
    (mixed / "metrics.jsonl").write_text(content)
    with pytest.raises(UserError, match=message):
        curves.write_curves(mixed)


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        write_report(tmp_path)


@pytest.mark.parametrize("recipe", ["avatars", "baseline"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"epochs": 2, "learning_rate": 3e-4, "tasks": ("shirt", "gender"), "trainable": ("layer3", "layer4")},
        {"run": Path("runs/with a space"), "data_dir": Path("some where"), "limit": 7, "weights": "it's.pth"},
        {"smoke": True},
        {"smoke": True, "epochs": 1},
    ],
)
def test_command_makes_the_config_again(recipe: str, changes: dict[str, Any]) -> None:
    config = apply_smoke(load_recipe(recipe).replace(**changes))
    words = shlex.split(command_line(config))
    assert words[:3] == ["facefeat", "train", recipe]
    parsed = tyro.cli(
        TrainConfig,
        default=load_recipe(recipe),
        args=words[3:],
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
    )
    assert apply_smoke(parsed) == config


def test_curves_picture(sequential: Path) -> None:
    import matplotlib

    def settings() -> dict[str, Any]:
        # Asked for the backend, matplotlib would choose one.
        return {name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"}

    before = settings()
    path = curves.write_curves(sequential)
    assert path == sequential / "curves.png"
    assert settings() == before
    image = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert image.shape[1] > image.shape[0] > 700
    for color, _ in curves.SERIES_COLORS[:3]:
        rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(image - rgb).max(axis=-1) < 12).sum() > 500, f"no line of colour {color}"
    assert sorted(p.name for p in sequential.iterdir()) == [
        "config.json",
        "curves.png",
        "metrics.jsonl",
        "results.json",
    ]


def test_curves_of_one_head_and_one_epoch(tmp_path: Path) -> None:
    config = load_recipe("avatars").replace(tasks=("glasses",), epochs=1)
    make_run(tmp_path, config, steps=1)
    with Image.open(curves.write_curves(tmp_path)) as image:
        assert image.size[0] > 700
    assert len(Page(write_report(tmp_path)).tables[0]) == 2


def test_read_curves(sequential: Path) -> None:
    read = curves.read_curves(sequential)
    assert list(read) == list(TASKS)
    assert len(read["shirt"].losses) == 300
    assert read["shirt"].epoch_starts == [60, 120, 180, 240]
    assert read["shirt"].epochs == [1, 2, 3, 4, 5]
    assert read["shirt"].validation_losses[1] == 0.25


def test_smooth() -> None:
    assert np.allclose(curves.smooth([3.0] * 40), 3.0)
    ramp = np.arange(50.0)
    # Looking equally far both ways, it leaves a straight line alone; at the ends it has less to look at.
    assert np.allclose(curves.smooth(ramp, 9)[4:-4], ramp[4:-4])
    assert np.allclose(curves.smooth(ramp, 9)[[0, -1]], [2, 47])
    noisy = np.random.RandomState(0).normal(size=2000)
    assert curves.smooth(noisy).std() < 0.15
    assert len(curves.smooth([])) == 0


def test_spikes_survive_thinning() -> None:
    values = np.ones(20_000)
    values[12_345] = 9.0
    steps, kept = curves.thinned(np.arange(20_000), values)
    assert len(kept) <= 1000
    assert kept.max() == 9.0
    assert steps[kept.argmax()] == 12_345
    assert (np.diff(steps) >= 0).all()


class FakeExamples:
    """Six pictures of two heads, the second labelled on the even ones only."""

    labels = {"gender": np.array([0, 1, 0, 1, 0, 1]), "shirt": np.array([0, -1, 2, -1, 1, -1])}  # noqa: RUF012

    def __len__(self) -> int:
        return 6

    def read(self, index: int) -> bytes:
        return encoded(Image.new("RGB", (10, 8), (40 * index, 0, 0)))

    def opened(self, index: int) -> contextlib.AbstractContextManager[bytes]:
        return contextlib.nullcontext(self.read(index))


def test_samples_and_counts_of_data() -> None:
    classes = {"gender": ("female", "male"), "shirt": ("black", "light_blue", "red")}
    samples = training_samples(FakeExamples(), classes, pixels=PIXELS, number=4)
    # Two with both labels, two with one.
    assert [sample.caption for sample in samples] == ["female, black", "male", "female, light blue", "male"]
    assert [sample.image[0, 0, 0] for sample in samples] == [0, 40, 160, 200]
    assert samples[0].image.shape == (16, 16, 3)
    assert len(training_samples(FakeExamples(), classes, pixels=PIXELS)) == 6
    assert count_data({"val": FakeExamples()}, classes) == {
        "val": {
            "pictures": 6,
            "classes": {"gender": {"female": 3, "male": 3}, "shirt": {"black": 1, "light_blue": 1, "red": 1}},
        }
    }


def test_tables(tmp_path: Path) -> None:
    results = make_run(tmp_path, load_recipe("baseline"), n=8196)
    assert results_table(results, sequential=True).splitlines() == [
        "              final weights   right after own pass",
        "head      accuracy     loss      accuracy     loss   pictures",
        "-------------------------------------------------------------",
        "gender       50.2%   1.2500         94.0%   0.1000      8,196",
        "glasses      50.2%   1.2500         94.0%   0.1000      8,196",
        "shirt        94.0%   0.1000         94.0%   0.1000      8,196",
    ]
    assert results_table(results, sequential=False).splitlines() == [
        "head      accuracy     loss   pictures",
        "--------------------------------------",
        "gender       50.2%   1.2500      8,196",
        "glasses      50.2%   1.2500      8,196",
        "shirt        94.0%   0.1000      8,196",
    ]
    table = heads_table({"a_head_with_a_long_name": HeadResult(1.0, 0.0006, 0.0006, 3)})
    assert table.splitlines()[2] == "a_head_with_a_long_name     100.0%   6.0e-04          3"


def test_figures_are_not_rounded_to_perfection() -> None:
    assert format_accuracy(0.99999) == "99.9%"
    assert format_accuracy(1.0) == "100.0%"
    assert format_accuracy(0.9764) == "97.6%"
    assert format_loss(0.0) == "0.0000"
    assert format_loss(0.0006) == "6.0e-04"
    assert format_loss(0.0815) == "0.0815"


@pytest.mark.parametrize(
    ("sizes", "count", "taken"),
    [((40, 4, 6), 24, (14, 4, 6)), ((33600, 3936, 5564), 24, (8, 8, 8)), ((2, 1), 24, (2, 1)), ((100,), 24, (24,))],
)
def test_samples_are_shared_out(sizes: tuple[int, ...], count: int, taken: tuple[int, ...]) -> None:
    """Of kinds of pictures that differ in what is labelled, each gets its share; no picture comes twice."""
    kinds, read = np.repeat(np.arange(len(sizes)), sizes), []

    class Kinds(FakeExamples):
        labels = {f"task{kind}": np.where(kinds == kind, 0, -1) for kind in range(len(sizes))}  # noqa: RUF012

        def read(self, index: int) -> bytes:
            read.append(index)
            return super().read(0)

    classes = {task: ("a", "b") for task in Kinds.labels}
    assert len(training_samples(Kinds(), classes, pixels=PIXELS, number=count)) == len(set(read)) == sum(taken)
    assert tuple(np.bincount(kinds[read])) == taken


def test_report_of_a_training(trained_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    # The log of the training loop itself, so that the two don't part.
    shutil.copytree(trained_run, run, ignore=shutil.ignore_patterns("checkpoints", "tensorboard", "*.html", "*.png"))
    page = Page(write_report(run))
    assert [row[0] for row in page.tables[0]] == ["head", *TASKS]
    assert "images/s in training" in page.text
    assert curves.write_curves(run).exists()


def test_drawing_library_is_loaded_late() -> None:
    code = (
        "import sys, facefeat_jax.reporting.curves, facefeat_jax.reporting.table, facefeat_jax.reporting.report;"
        "print([m for m in ('matplotlib', 'jinja2', 'PIL') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.fixture
def evaluation(made_answers) -> dict[str, Any]:
    """What `write_report` takes of an evaluation, of answers made by hand."""
    answers = made_answers()
    answers.labels["glasses"] = np.where(np.arange(400) < 300, np.arange(400) % 2, -1)
    answers.groups["hair"] = np.where(np.arange(400) % 3 == 0, "", "<i>red</i>")
    answers.groups["hair"][:50] = "black"
    assessment = assess(answers, calibrate(answers, step=300), data=("made",), batch_size=32, on_part=True)
    picture = np.full((16, 16, 3), 90, np.uint8)
    shown = [dataclasses.replace(one, image=picture, overlay=picture + 30) for one in choose_examples(answers)]
    return {"assessment": assessment, "shown": shown}


def test_evaluation_is_shown_in_full(mixed: Path, evaluation: dict[str, Any]) -> None:
    page = Page(write_report(mixed, samples=make_samples(4), **evaluation))
    assert not page.open
    headings = [squeezed(h) for h in re.findall(r"<h2[^>]*>(.*?)</h2>", page.source)]
    assert headings[:6] == [
        "Results",
        "Wrong answers",
        "How reliable the probabilities are",
        "By group",
        "All metrics",
        "Training",
    ]
    assessment = evaluation["assessment"]
    full = next(table for table in page.tables if table[0] == ["head", *METRICS.values(), "pictures"])
    accuracy, ends = (assessment.scores["gender"].values["accuracy"], assessment.scores["gender"].intervals["accuracy"])
    assert full[1][1] == f"{format_accuracy(accuracy)}{100 * ends[0]:.1f}\u2013{format_accuracy(ends[1])}"
    slicings = [one for of_head in assessment.slicings.values() for one in of_head]
    plain = [one for one in slicings if "×" not in one.by]
    assert page.source.count('class="tag"') >= sum(one.predicted for one in plain) > 0
    text = squeezed(page.text)
    assert "no value for hair" in text and "more than chance" in text and "no more than chance" in text
    assert "<i>red</i>" in text and "nan" not in text.split()
    assert len(page.all("img")) == 4 + 2 * len(evaluation["shown"])
    # The same care as for the rest of the page.
    assert all(th.get("scope") for th in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(image.get("alt") for image in page.all("img"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert not re.search(r"@import|url\((?!#)|https?://", page.source)


def test_the_first_screen_has_a_verdict_and_only_gaps_beyond_chance_are_unfolded(mixed: Path, made_answers) -> None:
    answers = made_answers()
    answers.labels["glasses"] = np.arange(400) % 2
    answers.logits["gender"][answers.groups["race"] == "Blue"] *= 0.6
    calibration = Calibration(300, {"gender": HeadCalibration(threshold=0.75), "glasses": HeadCalibration()})
    assessment = assess(answers, calibration, data=("made",), batch_size=32, on_part=True)
    picture = np.full((16, 16, 3), 90, np.uint8)
    shown = [dataclasses.replace(one, image=picture, overlay=picture) for one in choose_examples(answers)]
    source = Page(write_report(mixed, samples=make_samples(4), assessment=assessment, shown=shown)).source
    verdict = squeezed(re.sub(r"<[^>]*>", "", source[source.index('class="verdicts"') : source.index('id="shown"')]))
    check, scores = assessment.calibration["gender"], assessment.scores["gender"]
    totals = scores.confusion.sum(axis=1)
    assert f"Better than always answering {scores.classes[totals.argmax()]}" in verdict
    assert f"it answers {format_accuracy(check.coverage)}, " in verdict or check.coverage == 1
    assert format_accuracy(check.accuracy) in verdict
    assert "Fails most by race: " in verdict and "no_glasses" not in verdict and "no glasses" in verdict
    # What stands before the eyes, in this order; all else is folded, and opened on paper.
    assert re.findall(r'href="#(\w+)"', source)[:6] == [
        "results",
        "shown",
        "calibration",
        "groups",
        "figures",
        "training",
    ]
    groups = source[source.index('id="groups"') : source.index('id="figures"')]
    seen, folded = groups.split("<details>", 1)
    plain = [one for of_head in assessment.slicings.values() for one in of_head if "×" not in one.by]
    assert seen.count('class="slicing"') == sum(one.exceeds_chance for one in plain) > 0
    assert folded.count('class="slicing"') >= sum(not one.exceeds_chance for one in plain) > 0
    assert "::details-content" in source[source.index("@media print") :]
    # By group, the share that gets an answer stands beside the accuracy, and why there is no threshold per group.
    race = next(one for one in plain if (one.head, one.by) == ("gender", "race"))
    for group in race.slices:
        low, high = group.coverage.interval
        title = f'title="{100 * low:.1f}\u2013{format_accuracy(high)} of {group.coverage.n} pictures"'
        assert f"{title}>{format_accuracy(group.coverage.share, 0)}" in seen
    assert "none per group" in groups and "fewer pictures of" in groups
    card = write_model_card(
        mixed, ModelSpec("resnet18", assessment_classes(assessment), 32, "upright", "x"), assessment
    )
    assert "fewer pictures of Blue than of Green get an answer" in squeezed(card.read_text())
    assert "no threshold per group" in squeezed(card.read_text())


def assessment_classes(assessment) -> dict[str, tuple[str, ...]]:
    return {task: scores.classes for task, scores in assessment.scores.items()}


def test_bins_with_few_pictures_are_marks_and_panels_share_a_scale(evaluation) -> None:
    check = evaluation["assessment"].calibration["gender"]

    def lines(n: int) -> int:
        bins = [dataclasses.replace(one, n=n) for one in check.bins_after]
        drawn = reliability_svg(dataclasses.replace(check, bins_after=bins), 0, least=0.5)
        return len(re.findall(r'<g id="[^"]*line2d_\d+"', drawn))

    assert len(check.bins_after) > 2 and lines(19) < lines(20)
    assert all(round(point.coverage * check.after.n) >= 20 for point in worth_drawing(check))
    axes = [reliability_svg(one, 0, least=0.3) for one in evaluation["assessment"].calibration.values()]
    ticks = [re.findall(r">(\d+%)<", one) for one in axes]
    assert ticks[0] == ticks[1] and "40%" in ticks[0]


def test_run_that_was_trained_elsewhere_has_a_report_of_its_evaluation(mixed: Path, evaluation: dict[str, Any]) -> None:
    for name in ("results.json", "metrics.jsonl"):
        (mixed / name).unlink()
    page = Page(write_report(mixed, **evaluation))
    assert [row[0] for row in page.tables[0]] == ["head", "gender", "glasses"]
    assert "Evaluation report" in page.text and "Trained elsewhere" in page.text
    assert "training loss" not in page.text


def test_in_a_browser(sequential: Path, tmp_path: Path, evaluation: dict[str, Any]) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on PATH; the page is not opened in a browser")
    page = write_report(sequential, samples=make_samples(4), **evaluation)
    # Wider than the window, the page would have to be pushed about on a phone. The policy lets no script run, so it is
    # taken out of the copy that measures itself.
    measured = tmp_path / "measured.html"
    script = "<script>const page = document.documentElement; document.title = "
    script += "`${page.scrollWidth} ${innerWidth} ${page.scrollHeight}`</script></body>"
    source = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    measured.write_text(source.replace("</body>", script))
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    options += ["--enable-logging=stderr", "--v=0"]
    options.append(f"--user-data-dir={tmp_path / 'profile'}")
    said = {}
    for path, width in ((page, 500), (measured, 500), (measured, 1280)):
        done = subprocess.run(
            [chromium, *options, f"--window-size={width},800", "--dump-dom", path.as_uri()],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        said[path, width] = done
        assert "CONSOLE" not in done.stderr, done.stderr
        assert "right after own pass" in done.stdout and "By group" in done.stdout
    for width in (500, 1280):
        title = re.search(r"<title>(\d+) (\d+) (\d+)</title>", said[measured, width].stdout)
        assert title is not None
        assert int(title[1]) <= int(title[2])
    assert int(title[3]) <= 6 * 800  # before anything is unfolded


def test_hostile_names_reach_no_other_program(mixed: Path, made_answers, tmp_path: Path) -> None:
    evil = ["=cmd|'/C calc'!A0", "[x](javascript:alert(1))<b>\x1b[31m\x07", "line\nbreak | \u202egnp"]
    answers = made_answers(
        names=np.array([f"{evil[number % 3]}{number}" for number in range(400)]),
        classes={"gender": tuple(evil[:2]), "glasses": ("no", "$\\frac"), "shirt": tuple(evil)},
    )
    answers.groups["race"] = np.where(answers.groups["race"] == "Blue", *evil[1:])
    calibration = calibrate(answers, step=300)
    assessment = assess(answers, calibration, data=(evil[1],), batch_size=32, on_part=True)
    assessment = dataclasses.replace(assessment, notes=("12 of 98 validation pictures are left out",))
    picture = np.full((16, 16, 3), 90, np.uint8)
    shown = [dataclasses.replace(one, image=picture) for one in choose_examples(answers)]
    page = write_report(mixed, assessment=assessment, shown=shown, samples=[Sample(picture, evil[1])])
    names = {task: tuple(map(one_line, classes)) for task, classes in answers.classes.items()}  # a spec takes no others
    card = write_model_card(mixed, ModelSpec("resnet18", names, 32, "upright", evil[1]), assessment)
    for path in (page, card):
        assert all(letter.isprintable() or letter in "\n " for letter in path.read_text())
        assert "12 of 98 validation pictures are left out." in path.read_text()
    assert not re.search(r"<b>|<script", page.read_text())
    Page(page)
    metadata = yaml.safe_load(card.read_text().removeprefix("---\n").split("\n---\n")[0])
    assert metadata["datasets"] == [one_line(evil[1])]
    tokens = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table").parse(card.read_text())
    kinds = {part.type for token in tokens for part in (token, *(token.children or ()))}
    assert not kinds & {"html_inline", "html_block", "link_open", "image"}
    write_assessment(tmp_path / "tables", assessment, answers)
    for name in ("heads", "slices", "predictions"):
        rows = list(csv.reader(io.StringIO((tmp_path / "tables" / f"{name}.csv").read_text(), newline="")))
        assert not any(re.match(r"\s*[=+@]", cell) for row in rows for cell in row)
    assert [from_csv(row[0]) for row in rows[1:4]] == [f"{text}{number}" for number, text in enumerate(evil)]
    for line in [*scores_table(assessment.scores).split("\n"), *map(one_line, gap_lines(assessment))]:
        assert line.isprintable()


def test_the_card_begins_with_metadata_that_the_hub_reads(mixed: Path, evaluation: dict[str, Any]) -> None:
    assessment = evaluation["assessment"]
    card = write_model_card(
        mixed, ModelSpec("resnet18", assessment_classes(assessment), 32, "upright", "x"), assessment
    )
    head, body = card.read_text().removeprefix("---\n").split("\n---\n", 1)
    metadata = yaml.safe_load(head)
    assert metadata["library_name"] == "facefeat_jax" and metadata["license"] == "other"
    assert metadata["datasets"] == ["made"] and any("data set gives" in limit for limit in metadata["limits"])
    (model,) = metadata["model-index"]
    assert model["name"] == mixed.name and [one["task"]["name"] for one in model["results"]] == ["gender", "glasses"]
    for result in model["results"]:
        scores = assessment.scores[result["task"]["name"]]
        assert result["dataset"] == {"type": "made", "name": "made", "split": "validation"}
        found = {metric["name"]: metric for metric in result["metrics"]}
        for name, value in scores.values.items():
            metric = found[METRICS[name]]
            assert metric["value"] == pytest.approx(value, abs=1e-6)
            assert metric["confidence_interval_95"] == pytest.approx(scores.intervals[name], abs=1e-6)
    assert body.lstrip().startswith("# Model card: ")


def test_a_gap_is_told_apart_from_chance_and_is_not_larger_than_itself() -> None:
    one = Slicing("gender", "race", False, (), 0, "a", "b", 0.0532, (-0.0001, 0.1), 0.0528)
    assert gap_figures(one) == ("5.32", "-0.01", "10.00", "5.28")
    assert gap_figures(dataclasses.replace(one, gap_by_chance=0.01)) == ("5.3", "0.0", "10.0", "1.0")
    assert not dataclasses.replace(
        one, gap=1 / 3, gap_by_chance=float(np.float32(1 / 3) - np.float32(3e-8))
    ).exceeds_chance


def test_samples_are_the_pixels_of_the_model(mixed: Path) -> None:
    class Noise(FakeExamples):
        def read(self, index: int) -> bytes:
            return encoded(noise(90, 70, index))

    classes = {"gender": ("female", "male")}
    for size in (40, 200):
        pixels = PixelFormat(size, "upright", "bicubic")
        samples = training_samples(Noise(), classes, pixels=pixels)
        images = Page(write_report(mixed, samples=samples)).all("img")
        for index, image in enumerate(images):
            data = base64.b64decode(str(image["src"]).split(",", 1)[1])
            wanted = decode_resized(Noise().read(index), size, "upright", interpolation="bicubic")
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), wanted)
