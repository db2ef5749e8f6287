"""What an exported file says of its model, for whoever runs it without this program."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

import facefeat_jax
from facefeat_jax.data.images import decode_resized
from facefeat_jax.evaluation.metrics import probabilities
from facefeat_jax.exporting._agreement import Calibrations, Logits
from facefeat_jax.forward import FEATURES
from facefeat_jax.models.published import find_weights
from facefeat_jax.prediction.crops import FRAMES
from facefeat_jax.runs._head_calibration import heads_to_json
from facefeat_jax.runs._head_likeness import Likeness
from facefeat_jax.runs.checkpoints import Which
from facefeat_jax.runs.run_folder import Run
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system import checked_json

_UNLIKE = (
    "by likeness.heads.{head}, where there is one: offset is the square roots of the features (with sign), scaled "
    "to length 1, less mean; along is its products with the rows of basis; the distance is the sum of along^2 / "
    "variances, and (the squared length of offset, less that of along) / rest. Beyond the threshold the picture is "
    "unlike the training pictures; where withholds is true, the head then gives no answer. Arrays: base64 of "
    "little-endian float32"
)
_DECODING = {
    "as_notebook": "Pillow's convert('RGB'): the EXIF orientation is ignored, 16-bit grey is clipped at 255, "
    "transparency is dropped",
    "upright": "turned as the EXIF orientation says, deeper grey scaled to 8 bits, transparency laid on white, RGB",
}


def description(
    run: Run,
    heads: Calibrations,
    likeness: Likeness | None,
    checkpoint: Which,
    logits: Callable[[np.ndarray], Logits],
    quantization: Mapping[str, Any] | None = None,
) -> str:
    """Returns the description of a run's model as JSON.

    Args:
      run: the run.
      heads: the calibrations.
      likeness: what the training pictures are like, where that is known.
      checkpoint: which checkpoint was asked for.
      logits: gives the logits of pictures `[n, size, size, 3]`, by head, and the features.
      quantization: of a file in int8, how it was made and what that costs.
    """
    spec = run.spec
    content = {
        "spec": spec.to_json(),
        "calibration": heads_to_json(heads),
        "likeness": likeness and likeness.to_json(),
        "preprocessing": {
            "decode": _DECODING[spec.decode],
            "resize": f"to {spec.image_size} by {spec.image_size} pixels, aspect ratio not kept, with Pillow's "
            f"{spec.interpolation}: reduced, a new pixel is the weighted mean of all that it covers",
            "input": f"images: uint8 [batch, {spec.image_size}, {spec.image_size}, 3], RGB; scaled to [0, 1], the mean "
            "subtracted and divided by the deviation inside",
        },
        "crops": {
            "frames": {name: vars(frame) for name, frame in FRAMES.items()},
            "rule": "in widths and heights of the face's box from its centre: left, top, right, bottom; `needs`: how "
            "far down the picture has to reach. What reaches outside is filled with the picture's edge. `whole` is the "
            "picture as it is. The frame of each head: spec.frames",
        },
        "outputs": "{head}_probabilities [batch, classes]: calibrated, in the order of spec.classes. {head}_logits "
        "[batch, outputs]: before the temperature; one output: the logit of the second class. features [batch, "
        "features]: what the trunk gives",
        "unsure": "an answer whose probability is below calibration.{head}.threshold is none, and all are none where "
        "never_sure is true",
        "unlike": _UNLIKE,
        "reference": _reference(spec, heads, likeness, logits),
        "source": {"run": run.folder.resolve().name, "step": run.step, "checkpoint": checkpoint},
        "licences": _licences(run),
        "version": facefeat_jax.__version__,
    }
    if quantization is not None:
        content["quantization"] = dict(quantization)
    return json.dumps(checked_json.with_digest(content))


def _reference(
    spec: ModelSpec, heads: Calibrations, likeness: Likeness | None, logits: Callable[[np.ndarray], Logits]
) -> dict[str, Any]:
    """Returns a picture and what comes of it, by which an implementation in another language can be checked."""
    height, width = 40, 56
    rows, columns = np.mgrid[:height, :width]
    bands = np.stack([5 * columns, 6 * rows, 255 - 2 * (rows + columns) + 60 * (columns // 8 % 2)], axis=2)
    file = io.BytesIO()
    Image.fromarray((bands % 256).astype(np.uint8)).save(file, "PNG")
    pixels = decode_resized(file.getvalue(), spec.image_size, spec.decode, interpolation=spec.interpolation)
    found = logits(pixels[None])
    answers = {task: found[task][0] for task in heads}
    alike = likeness.heads if likeness else {}
    return {
        "png": base64.b64encode(file.getvalue()).decode(),
        "pixels_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
        "first_pixels": pixels[0, :4].tolist(),
        "logits": {task: values.tolist() for task, values in answers.items()},
        "probabilities": {
            task: probabilities(values[None] / heads[task].temperature)[0].tolist() for task, values in answers.items()
        },
        "distances": {task: float(head.distance(found[FEATURES])[0]) for task, head in alike.items()},
    }


def _licences(run: Run) -> dict[str, Any]:
    weights = find_weights(run.spec.trunk, run.spec.weights)
    terms = {}
    with contextlib.suppress(ImportError):
        from facefeat_jax.data.builders import get_source, list_sources

        known = [name for name in run.config.data.sources if name in list_sources()]
        terms = {name: get_source(name).terms for name in known}
    return {
        "program": "Apache-2.0",
        "initial weights": weights.licence if weights else f"of {run.spec.weights}: unknown, or none",
        "training data": {name: terms.get(name, "unknown") for name in run.config.data.sources},
        "note": "the terms of weights and data may limit what a model made from them may be used for",
    }
