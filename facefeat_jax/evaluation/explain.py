"""Grad-CAM: which parts of a picture speak for what a head says of it.

Selvaraju and others, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017. The
gradient of the head's score for its answer, averaged over the places of a map of the trunk, weighs the map's channels;
what is left above zero of their sum speaks for the answer. Each head has its own gradient, and so its own picture. It
shows where, not why, and says nothing of whether the answer is right.

The map is that of the last stage with 4 by 4 places or more. Where only a global average follows it (a ResNet's
`layer4` and an EfficientNet's `head`, from about 128 px on), Grad-CAM and HiResCAM (Draelos and Carin, 2020) are the
same. A Vision Transformer's features are its class token, on which the last stages' patch tokens have no more
influence, so the map is made of the patch tokens that go into its last block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from facefeat_jax.forward import prepared
from facefeat_jax.models._promotion import float32_or_wider
from facefeat_jax.models._values import split_values
from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.models.trunk import Trunk
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system.programs import kept
from facefeat_jax.system.text import one_line

LEAST_SIDE = 4
"""Places that a map should have on a side: fewer show no part of a picture."""

# From nothing to the most: dark violet, red, yellow, white; distinguishable in print and by the colour-blind (after
# matplotlib's inferno).
_RAMP = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float64)


def explained_stage(trunk: Trunk, image_size: int) -> str:
    """Returns the stage of the trunk whose map is looked at, for square pictures of that side in pixels."""
    pictures = jax.ShapeDtypeStruct((1, image_size, image_size, trunk.in_channels), jnp.float32)
    graphdef, state = nnx.split(trunk)
    found = jax.eval_shape(lambda state, x: nnx.merge(graphdef, state, copy=True).stages(x), state, pictures)
    names = list(trunk.STAGES)  # in order, which JAX's dicts don't keep
    shapes = {name: found[name].shape for name in names}
    if len(shapes[names[-1]]) == 3:
        # Tokens: the last stage in which the patches still have a say is that before the last block.
        return names[max(0, len(names) - 3)]
    sides = {name: min(shape[1:3]) for name, shape in shapes.items()}
    wanted = min(LEAST_SIDE, max(sides.values()))
    return [name for name in names if sides[name] >= wanted][-1]


class Frozen(NamedTuple):
    """A part of the trunk that is compiled already."""

    until: str  # its last stage, or `POOLED`
    outputs: Callable[[np.ndarray], jax.Array]  # maps pictures, uint8 `[n, size, size, 3]`, to that stage's output


class Explainer:
    """Makes the maps of a model.

    Args:
      model: in evaluation mode.
      spec: what it is.
      frozen: what has to be compiled no more; without, all of it is, at the first call.

    Attributes:
      model: see above.
      stage: the stage of the trunk whose map is looked at.
    """

    def __init__(self, model: MultiTaskModel, spec: ModelSpec, frozen: Frozen | None = None):
        self.model = model
        self.stage = explained_stage(model.trunk, spec.image_size)
        stages = list(model.trunk.STAGES)
        # The gradient with respect to the map is wanted: the part has to end before it.
        self._frozen = frozen if frozen and frozen.until in stages[: stages.index(self.stage)] else None
        graphdef, self._params, self._batch_stats = split_values(model)
        after = self._frozen.until if self._frozen else None
        self._step = _make_step(graphdef, spec, model.trunk.dtype, self.stage, after)

    def maps(self, rows: np.ndarray, tasks: Sequence[str]) -> dict[str, np.ndarray]:
        """Returns what speaks for each head's answer, float32 `[n, height, width]` from 0 to 1, the most of each being
        1; a map of zeros where nothing does.

        Args:
          rows: pictures as the model gets them, uint8 `[n, size, size, 3]`.
          tasks: the heads.
        """
        inputs = self._frozen.outputs(rows) if self._frozen else jax.device_put(rows)
        return jax.device_get(self._step(self._params, self._batch_stats, inputs, tasks=tuple(tasks)))


@kept
def _make_step(graphdef: nnx.GraphDef, spec: ModelSpec, dtype, stage: str, after: str | None):
    @partial(jax.jit, static_argnames="tasks")
    def explain_step(params, batch_stats, inputs, *, tasks: tuple[str, ...]):
        model = nnx.merge(graphdef, params, batch_stats, copy=True)
        activations = model.trunk(prepared(inputs, spec, dtype, after), until=stage, after=after)

        def logits_of(activations: jax.Array) -> dict[str, jax.Array]:
            logits = model(activations, tasks=tasks, after=stage)
            return {task: value.astype(float32_or_wider(value.dtype)) for task, value in logits.items()}

        logits, pullback = jax.vjp(logits_of, activations)
        found = {}
        for task in tasks:
            # The pictures of a batch don't see each other, so the gradient of the sum holds each picture's own.
            wanted = {other: jnp.zeros_like(value) for other, value in logits.items()}
            wanted[task] = _toward_answer(logits[task])
            (gradients,) = pullback(wanted)
            found[task] = _map(activations, gradients)
        return found

    return explain_step


def _toward_answer(logits: jax.Array) -> jax.Array:
    """Returns the gradient of the answer's score with respect to the logits `[batch, outputs]`."""
    if logits.shape[-1] == 1:
        return jnp.where(logits > 0, 1.0, -1.0).astype(logits.dtype)
    return jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=logits.dtype)


def _map(activations: jax.Array, gradients: jax.Array) -> jax.Array:
    activations, gradients = (value.astype(jnp.float32) for value in (activations, gradients))
    if activations.ndim == 3:
        activations, gradients = (_patches(value) for value in (activations, gradients))
    weights = gradients.mean(axis=(1, 2), keepdims=True)
    values = jax.nn.relu((weights * activations).sum(axis=-1))
    most = values.max(axis=(1, 2), keepdims=True)
    return jnp.where(most > 0, values / jnp.where(most > 0, most, 1), 0)


def _patches(tokens: jax.Array) -> jax.Array:
    """Returns the patches of tokens `[batch, 1 + n * n, width]` as a map `[batch, n, n, width]`."""
    side = math.isqrt(tokens.shape[1] - 1)
    return tokens[:, 1:].reshape(len(tokens), side, side, tokens.shape[2])


def overlay(picture: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Lays a map over a picture: what speaks for the answer glows, the rest is dimmed.

    Args:
      picture: uint8 `[height, width, 3]`.
      found: `[rows, columns]`, from 0 to 1; brought to the picture's size.

    Returns:
      uint8 `[height, width, 3]`.
    """
    from PIL import Image

    height, width = picture.shape[:2]
    values = np.asarray(Image.fromarray(found.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR))
    values = values.clip(0, 1)
    places = np.linspace(0, 1, len(_RAMP))
    glow = np.stack([np.interp(values, places, _RAMP[:, channel]) for channel in range(3)], axis=-1)
    share = (0.35 + 0.35 * values)[..., None]
    return (picture * (1 - share) + glow * share).round().astype(np.uint8)


def strip(
    picture: np.ndarray, maps: Mapping[str, np.ndarray], captions: Mapping[str, str], *, side: int = 224
) -> np.ndarray:
    """Puts a picture beside its overlays, each with a caption below.

    Args:
      picture: as the model gets it, uint8 `[size, size, 3]`.
      maps: per head `[rows, columns]`.
      captions: per head.
      side: height and width of each part in pixels; larger pictures keep their size.

    Returns:
      uint8 `[height, width, 3]`.
    """
    from PIL import Image, ImageDraw, ImageFont

    side = max(side, picture.shape[0])
    shown = np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))
    size = max(12, side // 16)
    font = ImageFont.load_default(size)
    gap, below = size // 2, 2 * size
    sheet = Image.new("RGB", ((side + gap) * (1 + len(maps)) - gap, side + below), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (task, image) in enumerate([("", shown), *((task, overlay(shown, m)) for task, m in maps.items())]):
        left = number * (side + gap)
        sheet.paste(Image.fromarray(image), (left, 0))
        caption = one_line(captions[task]) if task else "as the model sees it"
        while draw.textlength(caption, font=font) > side and len(caption) > 4:
            caption = caption[:-2].rstrip("…") + "…"
        draw.text((left, side + size // 3), caption, fill="black", font=font)
    return np.asarray(sheet)
