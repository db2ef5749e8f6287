"""Pages from the templates of this package, and pictures inside them."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from facefeat_jax.reporting._drawing import SERIES_COLORS
from facefeat_jax.system import markdown
from facefeat_jax.system.text import count, one_line

LARGEST = 256
"""Side in pixels to which larger pictures are brought: they are shown no larger."""

_LARGEST_PNG = 128  # side in pixels up to which PNG is small


def inlined(image: np.ndarray, *, exact: bool = False) -> str:
    """Returns a picture as a data URI, at most `LARGEST` pixels wide and high.

    Args:
      image: uint8 `[height, width, 3]`.
      exact: whether to keep the pixels of pictures that are not larger than that; else all but small ones become JPEG.
    """
    from PIL import Image

    picture = Image.fromarray(np.asarray(image, np.uint8)).convert("RGB")
    picture.thumbnail((LARGEST, LARGEST))
    form, options = _form(picture.size, exact and max(image.shape[:2]) <= LARGEST)
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _form(size: tuple[int, int], exact: bool) -> tuple[str, dict[str, Any]]:
    if max(size) <= _LARGEST_PNG:
        return "PNG", {"optimize": True}
    return ("WEBP", {"lossless": True}) if exact else ("JPEG", {"quality": 88})


def render(template: str, context: Mapping[str, Any]) -> str:
    """Returns a page: a template of `templates/` with its context, to which the page's colours are added.

    What is put into a page is escaped, since heads, classes and files may have any name: texts become one line without
    control characters (`one_line`), then HTML's or Markdown's special characters are escaped. The filter `drawn`
    lets SVG through, in which matplotlib has escaped all letters; what is Markdown already is `markdown.Markdown`.
    """
    import jinja2
    from markupsafe import Markup

    is_markdown = template.endswith(".md.j2")
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("facefeat_jax.reporting"),
        autoescape=not is_markdown,
        finalize=markdown.escaped if is_markdown else lambda value: one_line(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["drawn"] = Markup
    pages.filters["code"] = markdown.code
    pages.filters["sentence"] = lambda text: text[:1].upper() + text[1:]
    pages.filters["number_of"] = count
    return pages.get_template(template).render({"series_colors": SERIES_COLORS, **context})
