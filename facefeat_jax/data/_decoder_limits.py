"""What is allowed of a picture file, and the error for what is not."""

from __future__ import annotations

import io

from facefeat_jax.system.errors import UserError

MAX_PIXELS = 89_478_485
"""Largest width times height that is decoded: Pillow's own mark for a decompression bomb."""

MAX_SIDE = 65_535
"""Largest width or height, JPEG's own: a resize makes a picture of the new width and the old height on its way."""

MAX_SLOW_PIXELS = 4_000_000
"""Largest width times height of forms whose decoder is written in Python: about a second per million pixels."""

MAX_ICON_PIXELS = 12_000_000
"""Largest width times height of a picture in an ICO file, which Pillow decodes as it opens it."""


class BadImageError(UserError):
    """The bytes are not a picture that can be decoded; the message is the short reason, without the file's name."""


class MeteredFile(io.BytesIO):
    """A file in memory that gives up on whoever reads it in crumbs: headers of a million parts take minutes in Python.

    Attributes:
      left: reads that are still allowed.
    """

    def __init__(self, data: bytes):
        super().__init__(data)
        self.left = 20_000 + len(data) // 256

    def read(self, size: int | None = -1, /) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise BadImageError("too slow to decode: it consists of more and smaller parts than any picture")
        return _READ(self, size)  # Pillow reads a header in dozens of pieces, and `super` takes as long as a piece


_READ = io.BytesIO.read


def too_large(what: str, limit: int) -> BadImageError:
    """Returns the error for a picture of too many pixels."""
    return BadImageError(f"too large: {what}, the limit is {limit // 10**6} million pixels")
