"""The figures of the whole job, the sides beside each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from facefeat_jax.system.environment import record_lines
from facefeat_jax.system.markdown import table
from parity.job import SIDES, Side

_TITLES = {"jax": "JAX", "torch": "PyTorch"}
Figure = tuple[str, Callable[[Any], str]]  # what it is called, and its text


def report(results: dict[Side, dict[str, Any]]) -> str:
    """Returns the figures of the sides that are done, as Markdown."""
    sides = [side for side in SIDES if side in results]
    some = results[sides[0]]
    settings = some["settings"]
    frozen = "nothing frozen" if settings["trainable"] == ["all"] else "layer4 and the heads trained"
    lines = [
        f"Baseline's rules, {settings['weights']} weights (the same on both sides), {frozen}, "
        f"{settings['image_size']} px, batch {settings['batch_size']}, {settings['epochs']} epochs, "
        f"seed {settings['seed']}, sources {', '.join(settings['sources'])}"
        + (f", at most {settings['limit']} pictures of each split." if settings["limit"] else ".")
    ]
    for side in sides:
        lines += ["", f"{_TITLES[side]}, {results[side]['environment']['devices']}:", "", *record_lines(results[side])]

    def beside(first: list[str], rows: list[tuple[list[Any], dict[Side, Any]]], figures: list[Figure]) -> list[str]:
        header = [*first, *(f"{_TITLES[side]}: {name}" for name, _ in figures for side in sides)]
        cells = [[*about, *(text(of[side]) for _, text in figures for side in sides)] for about, of in rows]
        return table(header, cells, len(first))

    heads = []
    for task, final in some["final"].items():
        own = {side: [p for p in results[side]["passes"] if p["task"] == task][-1]["val"] for side in sides}
        of = {side: (own[side], results[side]["final"][task]) for side in sides}
        heads.append(([task, final["n"]], of))
    lines += ["", "Right after its own last pass, and of the final weights (validation):", ""]
    lines += beside(
        ["head", "pictures"],
        heads,
        [
            ("accuracy, own pass", lambda of: f"{of[0]['accuracy']:.3f}"),
            ("loss, own pass", lambda of: f"{of[0]['loss_of_batches']:.4f}"),
            ("accuracy, final", lambda of: f"{of[1]['accuracy']:.3f}"),
            ("loss, final", lambda of: f"{of[1]['loss_of_batches']:.4f}"),
        ],
    )
    passes = [
        ([one["epoch"], one["task"]], {side: results[side]["passes"][number] for side in sides})
        for number, one in enumerate(some["passes"])
    ]
    lines += ["", "Pass by pass:", ""]
    lines += beside(
        ["epoch", "head"],
        passes,
        [
            ("training loss", lambda one: f"{one['train_loss']:.4f}"),
            ("accuracy", lambda one: f"{one['val']['accuracy']:.3f}"),
            ("loss", lambda one: f"{one['val']['loss_of_batches']:.4f}"),
            ("images/s", lambda one: f"{one['images_per_s']:.0f}"),
        ],
    )
    lines += [
        "",
        "Losses are means of batch means, as the notebook reports them. Images/s are those of training, waiting for "
        "pictures included; the first pass of each head in JAX also compiles.",
    ]
    return "\n".join(lines) + "\n"
