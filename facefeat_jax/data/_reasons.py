"""What a file is that does not decode, or that is of another format than its name says; imports Pillow only."""

from __future__ import annotations

import re
import warnings
from types import TracebackType

from PIL import Image, UnidentifiedImageError

from facefeat_jax.data._decoder_limits import MAX_PIXELS, BadImageError, too_large
from facefeat_jax.system.errors import UserError

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
    "HEIF": {"heic", "heif", "hif"},
    "JXL": {"jxl"},
}

# The first bytes of files that turn up in the place of pictures, to say what they are.
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (rb"\xff\xd8\xff", "a JPEG"),
    (rb"\x89PNG\r\n\x1a\n", "a PNG"),
    (rb"GIF8[79]a", "a GIF"),
    (rb"RIFF....WEBP", "a WebP"),
    (rb"....ftypavi[fs]", "an AVIF"),
    (rb"II\*\x00|MM\x00\*", "a TIFF"),
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


def fits_suffix(name: str, form: str) -> bool:
    """Returns whether a file of that name should hold that format (Pillow's naming). Formats not known here fit."""
    suffix = name.rpartition(".")[2].lower()
    return suffix in _SUFFIXES.get(form, {suffix})


def is_named_as_picture(name: str) -> bool:
    """Returns whether a file's name ends as those of pictures do."""
    suffix = name.rpartition(".")[2].lower()
    return any(suffix in suffixes for suffixes in _SUFFIXES.values())


class Reasons:
    """A context in which whatever goes wrong in decoding some data becomes a `BadImageError` with a short reason."""

    def __init__(self, data: bytes):
        self._data = data

    def __enter__(self) -> None:
        # Others put filters in front of ours, and a test runner takes it away again.
        if not warnings.filters or warnings.filters[0] != _QUIET:
            warnings.filterwarnings("ignore", module=r"PIL\.")

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, Exception) and not isinstance(error, UserError):
            # Where the reason says it all, what Pillow said is not shown with it. No local name for the reason: it
            # would refer to itself by way of this frame, and keep the picture until the garbage collector comes by.
            raise _reason(error, self._data) from None if isinstance(error, _KNOWN) else error


_KNOWN = (Image.DecompressionBombError, MemoryError, UnidentifiedImageError)


def _reason(error: Exception, data: bytes) -> BadImageError:
    if isinstance(error, Image.DecompressionBombError):
        return too_large("a decompression bomb", MAX_PIXELS)
    if isinstance(error, MemoryError):
        return BadImageError("too large for the available memory")
    if isinstance(error, UnidentifiedImageError):
        return BadImageError(_foreign(data))
    # Pillow's plugins answer damaged data with almost any exception there is.
    message = " ".join(str(error).split())
    if _CUT.search(message) or (data[:4] == b"RIFF" and int.from_bytes(data[4:8], "little") + 8 > len(data)):
        return BadImageError("cut short")
    return BadImageError(f"damaged ({message or type(error).__name__})"[:200])


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
        return "not an image of a supported format"
    return "not an image: looks like text"
