"""The test that a head's likeness has to pass before it withholds an answer.

A network also recognises which data set a picture is from. So the distance must not only tell faces from what is none
(`AUROC` or more, for each kind), but also leave most faces of a source alone that it was not fitted on (`ALARMS` or
less), framed as the head's own pictures are. Where there is no such source, nothing is known, and the answer stays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from PIL import Image

from facefeat_jax import avatars
from facefeat_jax.data._frames import FACES, inside
from facefeat_jax.data.examples import Examples
from facefeat_jax.data.images import decode, pixels_resized
from facefeat_jax.evaluation._likeness import LEAST, HeadLikeness, Likeness, fit_heads, measured, own
from facefeat_jax.evaluation.answers import Answers
from facefeat_jax.forward import FEATURES, make_predict_step, predicted
from facefeat_jax.models._values import split_values
from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system.text import format_accuracy, format_area

AUROC = 0.95
ALARMS = 0.10

_MOST = 200  # pictures of each kind
_BATCH = 50

Rows = np.ndarray  # uint8 `[n, size, size, 3]`, as the model gets pictures


def fit_likeness(
    answers: Answers,
    examples: Examples,
    features: Callable[[Rows], np.ndarray],
    spec: ModelSpec,
    *,
    step: int,
    drawn: bool,
) -> Likeness:
    """Fits each head's likeness to validation pictures, and tests which heads may withhold answers by it.

    Args:
      answers: answers on these pictures, with features.
      examples: the pictures.
      features: the model's pooled features, such as `features_of` gives.
      spec: what the model is.
      step: step of its checkpoint.
      drawn: whether all training pictures were drawn.
    """
    heads = fit_heads(answers)
    digests = None if drawn else examples.digests()
    strange: dict[str, np.ndarray] = {}
    for task, head in heads.items():
        chosen = None if digests is None else _kin(answers, digests, spec, task)
        if chosen is None:
            why = (
                "the training pictures are drawn"
                if drawn
                else "there is no other source of such pictures to test this on"
            )
            why = f"unlike pictures are noted, and answered: {why}"
            heads[task] = dataclasses.replace(head, notes=(why,))
            continue
        strange = strange or {kind: features(rows) for kind, rows in no_faces(spec).items()}
        kin = features(np.stack([framed(examples, row, spec, spec.frames[of], task) for row, of in chosen]))
        heads[task] = _tested(head, own(answers, task), {**strange, **other_kinds(answers, spec, task)}, kin)
    return Likeness(step, drawn, heads)


def _tested(head: HeadLikeness, like: np.ndarray, others: dict[str, np.ndarray], kin: np.ndarray) -> HeadLikeness:
    areas, alarms = measured(head, like, others), float(head.unlike(kin).mean())
    worst = min(areas, key=lambda kind: areas[kind])
    passed = areas[worst] >= AUROC and alarms <= ALARMS
    text = (
        f"AUROC {format_area(areas[worst])} or more against what is no face (least: {worst}), "
        f"{format_accuracy(alarms)} alarms on {len(kin)} faces of another source: unlike pictures are "
        f"{'answered with unsure' if passed else 'noted, and answered'}"
    )
    return dataclasses.replace(head, withholds=passed, notes=(text,))


def _kin(answers: Answers, digests: np.ndarray, spec: ModelSpec, task: str) -> list[tuple[int, str]] | None:
    """Returns faces that a head was not fitted on and can be shown: their numbers, and the head that they are of."""
    # The same file may stand in two data sets, with a label for another head in each.
    strange = ~np.isin(digests, digests[answers.labels[task] >= 0])
    of: dict[int, str] = {}
    for other in answers.classes:
        frames = spec.frames[other], spec.frames[task]
        if other != task and set(frames) <= set(FACES) and inside(*frames):
            of |= {int(row): other for row in np.flatnonzero((answers.labels[other] >= 0) & strange)}
    if len(of) < LEAST:
        return None
    found = sorted(of.items())
    return [found[at] for at in np.linspace(0, len(found) - 1, min(len(found), _MOST)).astype(int)]


def framed(examples: Examples, row: int, spec: ModelSpec, frame: str, task: str) -> Rows:
    """Returns a picture of a data set with that frame as a head takes pictures: the part that its own frame is."""
    with examples.opened(row) as content:
        picture = decode(content, spec.decode)
    left, top, right, bottom = inside(frame, spec.frames[task]) or (0.0, 0.0, 1.0, 1.0)
    width, height = picture.size
    x, y = round(left * width), round(top * height)
    part = picture.crop((x, y, max(round(right * width), x + 1), max(round(bottom * height), y + 1)))
    return as_input(part, spec)


def as_input(picture: Image.Image, spec: ModelSpec) -> Rows:
    """Returns a picture as the model gets it, uint8 `[size, size, 3]`."""
    return pixels_resized(picture, spec.image_size, spec.decode, interpolation=spec.interpolation)


def other_kinds(answers: Answers, spec: ModelSpec, task: str) -> dict[str, np.ndarray]:
    """Returns the features of the validation pictures of heads that look at another part of a person."""
    assert answers.features is not None
    is_face = spec.frames[task] in FACES
    return {
        f"pictures of {other}": answers.features[answers.labels[other] >= 0]
        for other in answers.classes
        if (spec.frames[other] in FACES) != is_face and answers.count(other)
    }


def no_faces(spec: ModelSpec, number: int = 100) -> dict[str, Rows]:
    """Returns pictures that show no real face: drawn people, noise, and parts of scikit-learn's two scenes."""
    from sklearn.datasets import load_sample_images

    random, size = np.random.RandomState(0), spec.image_size
    noise = []
    for at in range(number):
        coarse = random.randint(0, 256, (4, 4, 3)).astype(np.uint8)
        faint = np.clip(random.normal(128, 20, (size, size, 3)), 0, 255).astype(np.uint8)
        fine = random.randint(0, 256, (size, size, 3)).astype(np.uint8)
        noise.append(Image.fromarray((coarse, faint, fine, coarse[:1, :1])[at % 4]))
    scenes: list[Image.Image] = []
    for at in range(number):
        scene = Image.fromarray(load_sample_images().images[at % 2]) if at < 2 else scenes[at % 2]
        side = random.randint(80, 400)
        left, top = random.randint(0, scene.width - side), random.randint(0, scene.height - side)
        scenes.append(scene if at < 2 else scene.crop((left, top, left + side, top + side)))
    drawn = [avatars.draw(1, at).image for at in range(number)]
    kinds = {"drawn people": drawn, "noise": noise, "scenes": scenes}
    return {kind: np.stack([as_input(picture, spec) for picture in pictures]) for kind, pictures in kinds.items()}


def features_of(model: MultiTaskModel, spec: ModelSpec) -> Callable[[Rows], np.ndarray]:
    """Returns a function from pictures `[n, size, size, 3]`, uint8, to pooled features `[n, features]`, float32."""
    graphdef, params, batch_stats = split_values(model)
    step, tasks = make_predict_step(graphdef, spec, spec.dtype, features=True), tuple(spec.classes)[:1]

    def features(rows: Rows) -> np.ndarray:
        return predicted(step, params, batch_stats, rows, tasks, _BATCH)[FEATURES].astype(np.float32)

    return features
