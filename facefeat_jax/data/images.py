"""From the bytes of a picture file to RGB pixels: one decoder, two policies.

Imports Pillow and numpy only.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
import threading
import warnings
from collections.abc import Callable
from typing import TypeVar, get_args

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from facefeat_jax.errors import UserError, unknown
from facefeat_jax.types import DecodePolicy, Interpolation

_Result = TypeVar("_Result")

MAX_PIXELS = 89_478_485
"""Largest width times height that is decoded: Pillow's own mark for a decompression bomb (256 MiB as RGB)."""

LARGE_PIXELS = 12_000_000
"""Pictures of more pixels are decoded one at a time, however many threads ask: one may take two gigabytes."""

_one_large = threading.Lock()

# Leaves out what runs another program (EPS starts Ghostscript), what has no signature, so that junk would pass for it
# (TGA, SPIDER, ...), and what Pillow only has stubs for.
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "DIB", "ICO", "QOI", "SGI", "PSD")

_SUFFIXES = {
    "JPEG": {"jpg", "jpeg", "jpe", "jfif", "mpo"},
    "MPO": {"jpg", "jpeg", "jpe", "jfif", "mpo"},
    "PNG": {"png", "apng"},
    "WEBP": {"webp"},
    "AVIF": {"avif", "avifs"},
    "GIF": {"gif"},
    "BMP": {"bmp", "dib"},
    "DIB": {"bmp", "dib"},
    "TIFF": {"tif", "tiff"},
    "JPEG2000": {"jp2", "j2k", "jpc", "jpf", "jpx", "j2c"},
    "PPM": {"ppm", "pgm", "pbm", "pnm", "pfm"},
    "ICO": {"ico"},
    "QOI": {"qoi"},
    "SGI": {"sgi", "rgb", "rgba", "bw"},
    "PSD": {"psd"},
}

# The first bytes of files that turn up in the place of pictures, to say what they are.
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (rb"\xff\xd8\xff", "a JPEG"),
    (rb"\x89PNG\r\n\x1a\n", "a PNG"),
    (rb"GIF8[79]a", "a GIF"),
    (rb"RIFF....WEBP", "a WebP"),
    (rb"....ftypavi[fs]", "an AVIF"),
    (rb"II\*\x00|MM\x00\*", "a TIFF"),
    (rb"....ftyp(hei[cx]|mif1|heim|heis|hevc)", "HEIC"),
    (rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI ", "a video"),
    (rb"%PDF", "PDF"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript"),
    (rb"PK\x03\x04|PK\x05\x06", "a zip archive"),
    (rb"\x1f\x8b", "a gzip archive"),
    (rb"(?i)\s*(<!doctype html|<html|<head|<body)", "HTML"),
    (rb"(?i)\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<svg", "SVG"),
    (rb"\s*<\?xml", "XML"),
    (rb"version https://git-lfs", "a Git LFS pointer: fetch the file itself with `git lfs pull`"),
    (rb"\s*[{\[]\s*[\"{\[]", "JSON"),
)
_PICTURE_SIGNATURES = 6  # the first ones above, of formats that are read: such a file is damaged rather than foreign

_CUT = re.compile(r"truncated|broken data stream|unexpected end|no more data|EOF|to read|not enough", re.IGNORECASE)

# Whatever Pillow would warn of is either refused here or of no consequence (broken EXIF, say). warnings.catch_warnings
# is not safe with threads, so the warnings are silenced where they arise.
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)

# Plugins are imported on first use otherwise, by whichever threads come first.
Image.init()


class BadImageError(UserError):
    """The bytes are not a picture that can be decoded; the message is the short reason, without the file's name."""


def decode(data: bytes, policy: DecodePolicy) -> Image.Image:
    """Decodes a picture file; its content, not its name, decides the format. Of an animation, the first frame.

    Safe to call from several threads; Pillow releases the GIL while it decodes.

    Args:
      data: the file's bytes.
      policy: `as_notebook` is PIL's `convert("RGB")`: the EXIF orientation is ignored, 16-bit grey is clipped at 255,
        transparency is dropped. `upright` applies the EXIF orientation, scales 16-bit grey down to 8 bits (their upper
        half, which is what Pillow itself does to 16-bit colour) and lays transparent pictures on white.

    Returns:
      The picture, mode RGB, loaded.

    Raises:
      BadImageError: the data is empty, cut short, damaged, not a picture, or more than `MAX_PIXELS`.
      UserError: there is no such policy.
    """
    return _decoded(data, lambda image: _to_rgb(image, policy))


def decode_resized(
    data: bytes, size: int, policy: DecodePolicy, *, interpolation: Interpolation = "bilinear"
) -> np.ndarray:
    """Decodes a picture and resizes it, aspect ratio not kept, as torchvision's `Resize((size, size))` does to PIL's.

    Args:
      data: the file's bytes.
      size: width and height wanted, in pixels.
      policy: see `decode`.
      interpolation: `bilinear` or `bicubic`, both over all the pixels that a new one covers.

    Returns:
      uint8 `[size, size, 3]`.

    Raises:
      BadImageError: see `decode`.
      UserError: there is no such policy or interpolation.
    """
    return _decoded(data, lambda image: _resized(_to_rgb(image, policy), size, interpolation))


def pixels_resized(
    picture: Image.Image | np.ndarray, size: int, policy: DecodePolicy, *, interpolation: Interpolation = "bilinear"
) -> np.ndarray:
    """Does to a picture that is in memory already what `decode_resized` does to a file's bytes.

    Args:
      picture: a PIL image of any mode, or an array `[height, width, 3]`, uint8, RGB.
      size: width and height wanted, in pixels.
      policy: see `decode`.
      interpolation: see `decode_resized`.

    Returns:
      uint8 `[size, size, 3]`.

    Raises:
      BadImageError: the array is of another shape or type, or the image can't be converted.
      UserError: there is no such policy or interpolation.
    """
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3 or 0 in picture.shape:
            raise BadImageError(f"not uint8 [height, width, 3], but {picture.dtype} {list(picture.shape)}")
        return _resized(Image.fromarray(np.ascontiguousarray(picture)), size, interpolation)
    if not isinstance(picture, Image.Image):
        raise BadImageError(f"not a picture: {type(picture).__name__}")
    return _resized(_guarded(b"", lambda: _to_rgb(picture, policy)), size, interpolation)


def _resized(image: Image.Image, size: int, interpolation: Interpolation) -> np.ndarray:
    if interpolation not in get_args(Interpolation):
        raise unknown("interpolation", interpolation, get_args(Interpolation))
    return np.asarray(image.resize((size, size), Image.Resampling[interpolation.upper()]))


def _to_rgb(image: Image.Image, policy: DecodePolicy) -> Image.Image:
    if policy not in get_args(DecodePolicy):
        raise unknown("decode policy", policy, get_args(DecodePolicy))
    return _upright(image) if policy == "upright" else image.convert("RGB")


def check(data: bytes) -> str:
    """Decodes a picture under both policies, to see that it can be.

    Returns:
      The format that its content has, in Pillow's naming (`JPEG`, `PNG`, `WEBP`, ...).

    Raises:
      BadImageError: see `decode`.
    """

    def both(image: Image.Image) -> str:
        form = image.format or ""
        _to_rgb(image, "as_notebook")
        _upright(image)
        return form

    return _decoded(data, both)


def fits_suffix(name: str, form: str) -> bool:
    """Returns whether a file of that name should hold that format (Pillow's naming). Formats not known here fit."""
    suffix = name.rpartition(".")[2].lower()
    return suffix in _SUFFIXES.get(form, {suffix})


def _decoded(data: bytes, use: Callable[[Image.Image], _Result]) -> _Result:
    """Returns what `use` makes of the picture as Pillow read it."""
    if not data:
        raise BadImageError("empty file")

    def run() -> _Result:
        if data.startswith(b"\0\0\1\0"):
            _require_small_icon(data)
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise _too_large(f"{width} by {height} pixels", MAX_PIXELS)
        with _one_large if width * height > LARGE_PIXELS else contextlib.nullcontext():
            image.load()
            return use(image)

    return _guarded(data, run)


def _require_small_icon(data: bytes) -> None:
    """Refuses an ICO whose pictures are larger than any icon: Pillow decodes one as it opens it, before we see a size.

    Its table of contents has a byte for each side; what counts is in the PNG or BMP headers that it points to.
    """
    (count,) = struct.unpack_from("<H", data, 4)
    for number in range(count):
        (at,) = struct.unpack_from("<I", data, 6 + 16 * number + 12)
        is_png = data[at : at + 8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack_from(">II", data, at + 16) if is_png else struct.unpack_from("<ii", data, at + 4)
        if abs(width * height) > LARGE_PIXELS:
            raise _too_large(f"an icon of {abs(width)} by {abs(height)} pixels", LARGE_PIXELS)


def _upright(image: Image.Image) -> Image.Image:
    # Broken EXIF is common and no reason to lose a picture that decodes.
    try:
        turned = ImageOps.exif_transpose(image)
    except Exception:
        turned = image
    if turned.mode.startswith("I"):
        # Mode I holds 16-bit samples too (PGM, and PNG in earlier versions); what is beyond them has no known scale.
        samples = np.asarray(turned)
        samples = samples.clip(0, 0xFFFF) if turned.mode == "I" else samples
        is_deep = turned.mode != "I" or samples.max() > 0xFF
        turned = Image.fromarray((samples >> 8 if is_deep else samples).astype(np.uint8))
    if turned.has_transparency_data:
        layer = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return turned.convert("RGB")


def _guarded(data: bytes, run: Callable[[], _Result]) -> _Result:
    """Runs some decoding; whatever goes wrong in it becomes a `BadImageError` with a short reason."""
    # Others put filters in front of ours, and a test runner takes it away again.
    if not warnings.filters or warnings.filters[0] != _QUIET:
        warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        return run()
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise _too_large("a decompression bomb", MAX_PIXELS) from None
    except MemoryError:
        raise BadImageError("too large for the memory at hand") from None
    except UnidentifiedImageError:
        raise BadImageError(_foreign(data)) from None
    except Exception as error:
        # Pillow's plugins answer damaged data with almost any exception there is.
        message = " ".join(str(error).split())
        if _CUT.search(message) or (data[:4] == b"RIFF" and int.from_bytes(data[4:8], "little") + 8 > len(data)):
            raise BadImageError("cut short") from error
        raise BadImageError(f"damaged ({message or type(error).__name__})"[:200]) from error


def _too_large(what: str, limit: int) -> BadImageError:
    return BadImageError(f"too large: {what}, the limit is {limit // 10**6} million pixels")


def _foreign(data: bytes) -> str:
    """Returns the reason for data that no decoder takes."""
    head = data[:1024]
    for number, (pattern, what) in enumerate(_SIGNATURES):
        if re.match(pattern, head, re.DOTALL):
            return (
                f"cut short or damaged: begins like {what}"
                if number < _PICTURE_SIGNATURES
                else (f"not an image: looks like {what}")
            )
    if not head.strip(b"\0"):
        return "not an image: nothing but zero bytes"
    try:
        head.decode("utf-8")
    except UnicodeDecodeError:
        return "not an image that is read here"
    return "not an image: looks like text"
