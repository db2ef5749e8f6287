"""The tables of the rows that are done, as Markdown."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facefeat_jax.runs.run_folder import write_file, write_json
from facefeat_jax.system import environment
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.markdown import table
from recipe_comparison.plan import AGAIN, INGREDIENTS, Row, ablation, seeds

HEADS = ("gender", "glasses", "shirt")
# Logistic regression on thumbnails of the same pictures (8 to 24 px), for accuracy.
FLOORS = {"gender": 0.912, "glasses": 0.858, "shirt": 0.721}
FIGURES = {"accuracy": "accuracy", "loss": "loss", "calibration_error": "calibration error"}
COMMANDS = "python scripts/lab/compare_recipes.py run\npython scripts/lab/compare_recipes.py report"

Found = dict[str, Any]


def read_rows(out: Path) -> list[Found]:
    """Reads what `run` has finished.

    Raises:
      UserError: there is nothing, or rows of one part are of different sizes, weights or machines.
    """
    found = [json.loads(path.read_text()) for path in sorted((out / "rows").glob("*.json"))]
    if not found:
        raise UserError(f"{out / 'rows'} holds no rows yet; run: python scripts/lab/compare_recipes.py run --out {out}")
    for part in ("ablation", "seeds"):
        alike = {json.dumps([row["size"], row["weights"]]) for row in found if row["part"] == part}
        if len(alike) > 1:
            raise UserError(f"the rows of {part} in {out} differ in size or weights; give each its own folder")
    return found


def write_page(found: Sequence[Found], to: Path) -> None:
    """Writes the page and, beside it, what it is made from."""
    write_json(to.with_suffix(".json"), list(found))
    write_file(to, page(found).encode())


def page(found: Sequence[Found]) -> str:
    """Returns the whole page."""
    parts = {part: [row for row in found if row["part"] == part] for part in ("ablation", "seeds")}
    lines = ["# The `best` recipe against the baseline", ""]
    lines += [
        f"`python scripts/lab/compare_recipes.py report` made this page from the {len(found)} runs in `recipes.json`. "
        "They use real pictures that are not part of the project: 3,200 faces to train the gender head and 800 to "
        "validate it (UTKFace in FairFace's layout), 1,600 and 400 for glasses (CelebA), 1,664 and 417 shop "
        "photographs for shirt. Every result is for the **final** weights. Unless stated otherwise, no person is in "
        "both splits of the glasses set.",
        "",
        "All rows of a table start from the same weights (for the same seed) and train on the same number of pictures. "
        "`baseline` follows the notebook's rules, but freezes nothing: training only the last block on top of random "
        "weights would show little.",
        "",
        *_environment(found),
    ]
    if parts["seeds"]:
        lines += ["", "## Against the baseline's rules", "", *_seeds(parts["seeds"])]
        lines += ["", "## Accuracy right after a head's own pass, and at the end", "", *_defect(parts["seeds"])]
        lines += ["", "## Effect of the same people in both splits", "", *_split(parts["seeds"])]
    if parts["ablation"]:
        lines += ["", "## Effect of each ingredient", "", *_ablation(parts["ablation"])]
    if missing := _missing(found):
        lines += ["", "## Not measured yet", "", f"{', '.join(missing)}. The command continues where it stopped."]
    return "\n".join(_wrapped(line) for line in lines) + "\n"


def _wrapped(line: str) -> str:
    return line if line.startswith(("|", "#", "```")) else textwrap.fill(line, 120, break_on_hyphens=False)


def _environment(found: Sequence[Found]) -> list[str]:
    machines = sorted({f"Machine: {environment.line(row['environment'])}." for row in found})
    return [*machines, "", "```", *COMMANDS.splitlines(), "```"]


def _size(rows: Sequence[Found]) -> str:
    size, passes = rows[0]["size"], sorted({row["passes"] for row in rows})
    limit = f", at most {size['limit']} pictures of each split of each set" if size["limit"] else ""
    start = "random weights" if rows[0]["weights"] == "random" else f"the weights of {rows[0]['weights']}"
    many = " to ".join(f"{count:,}" for count in dict.fromkeys((passes[0], passes[-1])))
    seconds = [row["seconds"] for row in rows]
    return (
        f"{size['image_size']} px, {size['epochs']} epochs{limit}, from {start}; {many} pictures per run. On one core, "
        f"with other work on the machine, a run took at least {min(seconds) / 60:.1f} minutes (median "
        f"{np.median(seconds) / 60:.1f})."
    )


def _spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def _three(figures: dict[str, float]) -> str:
    return " / ".join(f"{figures[name]:.3f}" for name in FIGURES)


def _of(rows: Sequence[Found], name: str) -> dict[int, Found]:
    return {row["seed"]: row for row in rows if row["name"] == name}


def _seeds(rows: Sequence[Found]) -> list[str]:
    baseline, best = _of(rows, "baseline"), _of(rows, "best")
    both = sorted(baseline.keys() & best.keys())
    compared = [row for row in rows if row["name"] in ("baseline", "best")]
    lines = [_size(compared), ""]
    if not both:
        return [*lines, "No seed has both rows yet."]
    several = f"Mean and standard deviation over {len(both)} seeds ({', '.join(map(str, both))})."
    lines += [several if len(both) > 1 else f"So far from one seed ({both[0]}).", ""]
    body = []
    for head in HEADS:
        for figure, title in FIGURES.items():
            sides = [[side[seed]["heads"][head][figure] for seed in both] for side in (baseline, best)]
            sign = 1 if figure == "accuracy" else -1
            ahead = sum(sign * (two - one) > 0 for one, two in zip(*sides, strict=True))
            floor = f"{FLOORS[head]:.3f}" if figure == "accuracy" else ""
            body.append([f"{head} {title}", *map(_spread, sides), f"{ahead} of {len(both)}", floor])
    lines += table(["", "baseline", "best", "seeds on which `best` is better", "linear floor"], body)
    above = {head: sum(best[seed]["heads"][head]["accuracy"] > FLOORS[head] for seed in both) for head in HEADS}
    seed_count = f"{len(both)} seeds" if len(both) > 1 else "1 seed"
    listed = ", ".join(f"{head} on {count} of {seed_count}" for head, count in above.items())
    lines += [
        "",
        "Above the linear floor (logistic regression on thumbnails of 8 to 24 px of the same pictures, notebook's "
        f"split): {listed}.",
    ]
    if others := _of(rows, "best, other balance"):
        listed = "; ".join(
            f"--balance {row['fields'].get('balance', 1.0):g}: "
            + ", ".join(f"{head} {row['heads'][head]['accuracy']:.3f}" for head in HEADS)
            for seed in sorted(others.keys() & best.keys())
            for row in (best[seed], others[seed])
        )
        lines += ["", f"Balance, seed 0, accuracy: {listed}."]
    return lines


def _defect(rows: Sequence[Found]) -> list[str]:
    lines = [
        "The notebook measures each head right after its own pass and never again. With its schedule, the trunk and "
        "its BatchNorm statistics then change on the next task's pictures. With mixed batches they fit all tasks.",
        "",
    ]
    body = []
    for name, schedule in (("baseline", "sequential"), ("mixed", "mixed")):
        for seed, row in sorted(_of(rows, name).items()):
            last = {entry["task"]: entry for entry in row["history"]}
            pairs = [f"{last[head]['accuracy']:.3f} → {row['heads'][head]['accuracy']:.3f}" for head in HEADS]
            body.append([f"{schedule}, seed {seed}", *pairs])
    return lines + table(["accuracy after its own last pass → of the final weights", *HEADS], body)


def _split(rows: Sequence[Found]) -> list[str]:
    apart, plain = _of(rows, "best"), _of(rows, "best, plain split")
    both = sorted(apart.keys() & plain.keys())
    if not both:
        return ["Not measured yet."]
    numbers = [side[both[0]]["pictures"]["train"]["glasses"] for side in (apart, plain)]
    lines = [
        f"The notebook splits pictures, not people: {numbers[1] - numbers[0]} of the {numbers[1]:,} training pictures "
        "of the glasses set show someone who is also in validation. The runs above leave them out (`--disjoint "
        "identity`). The table compares the same recipe with and without them, on the same validation pictures:",
        "",
    ]
    body = [
        [
            f"glasses {title}",
            *(_spread([side[seed]["heads"]["glasses"][figure] for seed in both]) for side in (apart, plain)),
        ]
        for figure, title in FIGURES.items()
    ]
    lines += table(["", "no person in both splits", "notebook's split"], body)
    return [*lines, "", "Part of the difference comes from the larger training set of the notebook's split."]


def _ablation(rows: Sequence[Found]) -> list[str]:
    order = {row.name: number for number, row in enumerate(ablation())}
    rows = sorted(rows, key=lambda row: order.get(row["name"], len(order)))
    lines = [
        _size(rows)
        + " With one seed and 400 to 600 validation pictures per head, differences in accuracy below about 0.02 mean "
        "nothing. Each row `with ...` adds one option to `mixed, schedule`; `with all` adds the first "
        f"{len(INGREDIENTS)}. `{AGAIN}` and the rows after it were run later, on the second machine: compare them with "
        "each other. What the same row gives twice shows the noise. Layer decay and unfreezing are for weights that "
        "have learned something, and these have not.",
        "",
    ]
    body = []
    for row in rows:
        figures = [row["heads"][head] for head in HEADS]
        cells = [_three(one) for one in figures]
        means = [np.mean([one[figure] for one in figures]) for figure in FIGURES]
        body.append([row["name"], *cells, " / ".join(f"{mean:.3f}" for mean in means)])
    lines += table(["accuracy / loss / calibration error", *HEADS, "mean"], body)
    return [*lines, "", *_settings(rows)]


def _settings(rows: Sequence[Found]) -> list[str]:
    """Returns what each row's name stands for."""
    known = {row["name"]: row["fields"] for row in rows}
    base = known.get("mixed, schedule", {})
    listed = []
    for name, fields in known.items():
        if name.startswith("with ") and name != "with all":
            added = {field: value for field, value in fields.items() if base.get(field) != value}
            listed.append(", ".join(f"`{field}` {value}" for field, value in added.items()))
    best = ", ".join(f"`{field}` {value}" for field, value in known.get("best", {}).items())
    return [f"Values: {'; '.join(listed)}.", "", f"`best` in this table: {best}."]


def _missing(found: Sequence[Found]) -> list[str]:
    done = {(row["part"], row["name"], row["seed"]) for row in found}

    def is_lacking(row: Row) -> bool:
        return (row.part, row.name, row.seed) not in done

    return [row.key for row in (*seeds(3), *ablation()) if is_lacking(row)]
