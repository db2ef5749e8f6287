"""Measures whether a run's heads tell pictures that are unlike their training pictures, and leave other faces alone.

    python scripts/lab/measure_unlike.py RUN... --to docs/benchmarks/unlike.md

Each RUN is a trained run on some of the three data sets, all of which have to be prepared. What is measured is what a
run keeps (`facefeat_jax/evaluation/_likeness.py`), fitted anew; pictures of sets that a run was not trained on are
unknown to its trunk too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from common import write_results
from facefeat_jax.data._frames import FACES, inside
from facefeat_jax.data.dataset import default_data_dir
from facefeat_jax.data.examples import Examples, open_examples
from facefeat_jax.data.images import decode
from facefeat_jax.evaluation._likeness import FALSE_ALARMS, RANK, HeadLikeness, measured, own
from facefeat_jax.evaluation._likeness_check import as_input, features_of, fit_likeness, framed, no_faces
from facefeat_jax.evaluation.evaluate import answers_of_run
from facefeat_jax.prediction._faces import open_finder
from facefeat_jax.prediction.crops import crop
from facefeat_jax.runs.run_folder import Run
from facefeat_jax.system.environment import record, record_lines
from facefeat_jax.system.main import run_and_exit
from facefeat_jax.system.markdown import table
from facefeat_jax.tasks import TASKS

_SOURCES = ("fairface", "glasses", "apparel")
_TASK_OF = {source: next(task.name for task in TASKS.values() if task.source == source) for source in _SOURCES}

_PAGE = """\
# Pictures unlike the training pictures

`predict` compares each picture with those that a head was trained on
([what it does](../evaluation.md#pictures-of-another-kind)). This page measures whether the distance tells what is no
such picture, and whether it leaves faces of another source alone. The networks were trained from random weights on few
pictures ({trained}), because we could not get published weights; others will give other
numbers. The pictures are those of [the audit](audit.md): faces in FairFace's layout (UTKFace), CelebA faces of the
glasses set, shop photographs; and pictures that the project makes: drawn people, noise, parts of scikit-learn's two
scenes. The method (features, directions, threshold) was chosen on pictures of these kinds, so expect somewhat worse on
others.

{made}

The runs were trained by

```
{commands}
```

The distribution has {rank} directions, and the threshold lets {alarms} of a head's own validation pictures raise an
alarm.

## What is no such picture

AUROC of the distance against the head's own validation pictures, and in brackets the share that raises an alarm. The
condition is an AUROC of 0.95 in every column.

{strange}

## Sources that a head was not fitted on

Share of pictures that raise an alarm. The condition is at most 10%. *As it is*: the whole picture. *Cut by frames*: the
part that the head's own pictures show, by the medians of [faces and crops](crops.md#how-the-sets-are-framed). *By the
finder*: the crop that `predict --faces` makes, where it finds one face.

{others}

## What `predict` does

Each run decides by itself when it is evaluated, with the pictures that it has (*cut by frames*, and the first table):

{verdicts}

{findings}
"""

_FINDINGS = """\
Much of what looks like another source is another way to cut the picture: compare the columns *as it is* and *by the
finder*. A low alarm rate says nothing where the AUROC is low as well: such a head hardly raises any alarm.
"""


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs."""
    data_dir: Path | None = None
    """Where the prepared data sets lie; the default is $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    to: Path | None = None
    """The page to write; the figures go beside it as JSON."""


def measure(folder: Path, data_dir: Path) -> dict[str, Any]:
    """Returns the figures of a run, by head."""
    found = answers_of_run(folder, data_dir=data_dir)
    run, answers, spec = found.run, found.answers, found.run.spec
    likeness = fit_likeness(answers, found.examples, features_of(run.model, spec), spec, step=run.step, drawn=False)
    features, sets = features_of(run.model, spec), {}
    for source in _SOURCES:
        sets[source] = open_examples([source], "val", data_dir, {}, need_all=False)
    strange = {kind: features(rows) for kind, rows in no_faces(spec).items()}
    plain = {source: features(_whole(examples, run)) for source, examples in sets.items()}
    figures = {}
    for task, head in likeness.heads.items():
        is_face = spec.frames[task] in FACES
        others = [s for s in _SOURCES if (spec.frames.get(_TASK_OF[s], TASKS[_TASK_OF[s]].frame) in FACES) != is_face]
        kinds = {**{source: plain[source] for source in others}, **strange}
        areas = measured(head, own(answers, task), kinds)
        kin = [s for s in _SOURCES if is_face and s not in others and TASKS[task].source != s]
        figures[task] = {
            "pictures": answers.count(task),
            "strange": {kind: [areas[kind], float(head.unlike(kinds[kind]).mean())] for kind in kinds},
            "others": {s: _alarms(head, task, s, sets[s], plain[s], run, features) for s in kin},
            "withholds": head.withholds,
            "note": head.notes[0],
        }
    config = run.config
    return {
        "sources": list(config.data.sources),
        "epochs": config.batches.epochs,
        "name": folder.name,
        "trained": f"{config.model.trunk}, {config.data.image_size} px",
        "heads": figures,
    }


def _whole(examples: Examples, run: Run) -> np.ndarray:
    rows = []
    for index in range(len(examples)):
        with examples.opened(index) as content:
            rows.append(as_input(decode(content, run.spec.decode), run.spec))
    return np.stack(rows)


def _alarms(
    head: HeadLikeness, task: str, source: str, examples: Examples, plain: np.ndarray, run: Run, features: Any
) -> dict[str, Any]:
    spec, frame = run.spec, TASKS[_TASK_OF[source]].frame
    shares: dict[str, Any] = {"as it is": float(head.unlike(plain).mean()), "pictures": len(plain)}
    if inside(frame, spec.frames[task]):
        rows = [framed(examples, index, spec, frame, task) for index in range(len(examples))]
        shares["cut by frames"] = float(head.unlike(features(np.stack(rows))).mean())
    find, rows = open_finder(), []
    for index in range(len(examples)):
        with examples.opened(index) as content:
            picture = decode(content, spec.decode)
        boxes = find(np.asarray(picture))
        part = crop(picture, boxes[0], spec.frames[task]) if len(boxes) == 1 else None
        if part is not None:
            rows.append(as_input(part, spec))
    shares |= {"by the finder": float(head.unlike(features(np.stack(rows))).mean()), "found": len(rows)}
    return shares


def page(results: dict[str, Any]) -> str:
    """Returns the figures as Markdown."""
    strange, others, verdicts = [], [], []
    kinds = list(dict.fromkeys(k for run in results["runs"] for one in run["heads"].values() for k in one["strange"]))
    for run in results["runs"]:
        trained = ", ".join(run["sources"])
        for task, one in run["heads"].items():
            cells = [
                f"{one['strange'][kind][0]:.3f} ({one['strange'][kind][1]:.2f})" if kind in one["strange"] else ""
                for kind in kinds
            ]
            strange.append([trained, task, one["pictures"], *cells])
            for source, shares in one["others"].items():
                names = ("as it is", "cut by frames", "by the finder")
                cells = [f"{shares[name]:.3f}" if name in shares else "" for name in names]
                others.append([trained, task, source, shares["pictures"], *cells, shares["found"]])
            verdicts.append(f"- trained on {trained}, **{task}**: {one['note']}.")
    epochs = sorted({run["epochs"] for run in results["runs"]})
    return _PAGE.format(
        trained=f"{results['runs'][0]['trained']}, {' or '.join(map(str, epochs))} epochs",
        made="\n".join(record_lines(results)),
        rank=RANK,
        alarms=f"{FALSE_ALARMS:.0%}",
        commands="\n".join(map(_command, results["runs"])),
        strange="\n".join(table(["trained on", "head", "pictures", *kinds], strange, 2)),
        others="\n".join(
            table(
                ["trained on", "head", "source", "pictures", "as it is", "cut by frames", "by the finder", "found"],
                others,
                3,
            )
        ),
        verdicts="\n".join(verdicts),
        findings=_FINDINGS.strip(),
    )


def _command(run: dict[str, Any]) -> str:
    tasks = sorted(run["heads"], key=list(TASKS).index)
    words = ["facefeat train avatars --sources", *run["sources"], "--tasks", *tasks, "--epochs", run["epochs"]]
    return " ".join(map(str, [*words, "--run", run["name"]]))


def main() -> int:
    """Measures, prints and writes the figures."""
    arguments = tyro.cli(Arguments, description=__doc__)
    runs = " ".join(run.name for run in arguments.runs)
    command = f"python scripts/lab/measure_unlike.py {runs} --to docs/benchmarks/unlike.md"
    data_dir = arguments.data_dir or default_data_dir()
    results = {"runs": [measure(run, data_dir) for run in arguments.runs]}
    results |= record(command, ("jax", "flax", "numpy", "pillow", "scikit-learn", "opencv-python-headless"))
    print(page(results))
    write_results(page(results), results, arguments.to)
    return 0


if __name__ == "__main__":
    run_and_exit(main)
