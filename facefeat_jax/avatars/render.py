"""Puts a picture together: behind first, then body, head, what is worn, what comes before it; then light and camera."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from facefeat_jax.avatars import _backdrop as backdrop
from facefeat_jax.avatars import _clothes as clothes
from facefeat_jax.avatars import _face as face
from facefeat_jax.avatars import _hair as hair
from facefeat_jax.avatars import _props as props
from facefeat_jax.avatars._dice import Dice
from facefeat_jax.avatars._parts import Light
from facefeat_jax.avatars._pen import Pen
from facefeat_jax.avatars.scene import Scene

IMAGE_SIZE = 96
_OVERSAMPLING = 3  # drawn three times as large and reduced: Pillow's own polygons have hard edges


def render(scene: Scene) -> Image.Image:
    """Returns the scene's picture, RGB."""
    size = IMAGE_SIZE * _OVERSAMPLING
    image = Image.new("RGB", (size, size), scene.backdrop.color)
    page = Pen(ImageDraw.Draw(image, "RGBA"), np.array([[size, 0.0, 0.0], [0.0, size, 0.0]]))
    backdrop.draw_backdrop(page, scene.backdrop, scene.dice("backdrop"))

    view = scene.view
    figure = page.frame(view.x, view.y, (-view.unit if view.mirrored else view.unit, view.unit))
    head = figure.frame(angle=view.tilt)
    features = head.frame(0.17 * view.turn, 0.0, (1.0 - 0.1 * abs(view.turn), 1.0))
    details = scene.dice("face")

    body = figure.frame(angle=view.lean)
    hair.draw_back_hair(head, scene.face, scene.hair)
    clothes.draw_clothes(body, scene.clothes, scene.shirt, scene.face, scene.dice("clothes"))
    face.draw_head(head, features, scene.face, view.turn)
    face.draw_marks(features, scene.face, details)
    face.draw_eyes(features, scene.face)
    face.draw_nose(features, scene.face)
    if scene.gender == "female":
        face.draw_feminine_cues(features, scene.face, scene.lashes)
    else:
        face.draw_masculine_cues(features, head, scene.face, scene.whiskers)
    face.draw_patch(features, scene.face, details)
    hair.draw_front_hair(head, scene.face, scene.hair)
    if scene.glasses == "glasses":
        face.draw_glasses(features, scene.face, scene.eyewear)
    hair.draw_hat(head, scene.face, scene.hair, scene.eyewear)
    props.draw_prop(body, scene.prop, scene.face)
    backdrop.draw_occlusion(figure, scene.occlusion, scene.face)
    return _finished(image.reduce(_OVERSAMPLING), scene.light, scene.dice("camera"))


def _finished(image: Image.Image, light: Light, dice: Dice) -> Image.Image:
    """Returns the picture, lit and photographed: gradient, cast, exposure, contrast, blur, grain."""
    if light.blur:
        image = image.filter(ImageFilter.GaussianBlur(light.blur))
    pixels: np.ndarray = np.asarray(image, dtype=np.float32)
    along = np.linspace(-1.0, 1.0, pixels.shape[0], dtype=np.float32)
    across = math.cos(light.angle) * along[None, :] + math.sin(light.angle) * along[:, None]
    lit = (light.exposure * (1.0 - 0.5 * light.slope * (1.0 + across)))[..., None] * np.asarray(light.gains, np.float32)
    pixels = pixels * lit
    pixels = (pixels - 128.0) * np.float32(light.contrast) + 128.0
    # Grain of the light more than of the colours, as a sensor's is after its own noise reduction.
    pixels += (0.8 * light.grain) * dice.grain((*pixels.shape[:2], 1)) + (0.4 * light.grain) * dice.grain(pixels.shape)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
