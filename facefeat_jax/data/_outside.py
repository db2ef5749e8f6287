"""HEIC and JPEG XL, by Pillow's plug-ins: in a process of its own, which may take so much memory and time and no more.

What their decoders take can't be read from the headers, as it is for the other formats. The process is started for the
first such picture, serves one at a time, and is started anew where it had to be ended.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import threading
from typing import IO, Any

from PIL import Image, UnidentifiedImageError

from facefeat_jax.data._decoder_limits import MAX_PIXELS, MAX_SIDE, BadImageError
from facefeat_jax.system.errors import install
from facefeat_jax.system.runtime import give_back_freed_memory

SECONDS = 60.0
"""For one picture."""

_MEMORY = 7 * 2**27  # bytes beside what the process takes at first: with what is left over from others, under 1.1 GiB
_LARGE = 2**24  # bytes of pixels
_FORMS = {
    "HEIC": (re.compile(rb"....ftyp(hei[cxms]|he[vx]c)", re.DOTALL), "pillow_heif", "HEIF"),
    "JPEG XL": (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", re.DOTALL), "pillow_jxl", "JXL"),
}
_GENERAL = re.compile(rb"....ftypm[is]f1", re.DOTALL)
_MODES = ("L", "LA", "RGB", "RGBA")


def form_of(data: bytes) -> str | None:
    """Returns the name of a format that is decoded here; None for all others."""
    if data[4:8] not in (b"ftyp", b"JXL ") and data[:2] != b"\xff\x0a":
        return None  # as nearly all are
    if _GENERAL.match(data):  # a brand of AVIF files too, which say so behind it
        return None if re.search(rb"avi[fs]", data[12 : int.from_bytes(data[:4], "big")][:256]) else "HEIC"
    return next((name for name, (signature, *_) in _FORMS.items() if signature.match(data)), None)


def decoded(data: bytes, form: str) -> Image.Image:
    """Returns a picture, turned as its file says, loaded.

    Args:
      data: the file.
      form: what `form_of` says.

    Raises:
      BadImageError: it can't be decoded, is too large, takes too much memory or time, or the plug-in is missing.
    """
    with _lock:
        answer, pixels = _child.ask(data, form)
    if error := answer.get("error"):
        raise BadImageError(f"looks like {form}, {error}"[:300])
    picture = Image.frombytes(answer["mode"], tuple(answer["size"]), pixels)
    picture.format = _FORMS[form][2]
    return picture


class _Child:
    """The process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def end(self) -> None:
        """Ends the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def ask(self, data: bytes, form: str) -> tuple[dict[str, Any], bytes]:
        if self._process is None or self._process.poll() is not None:
            # One arena and one thread: each would take address space, which is what is limited.
            environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
            code = f"import sys; sys.path[:0] = {sys.path!r}; from facefeat_jax.data import _outside; _outside.serve()"
            # -P: nothing is imported from the current folder.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
            )
        process = self._process
        assert process.stdin and process.stdout
        watch = threading.Timer(SECONDS, process.kill)
        watch.start()
        try:
            _send(process.stdin, {"form": form}, data)
            return _receive(process.stdout)
        except (OSError, ValueError):
            self.end()
            return {"error": "and takes more memory or time to decode than is allowed"}, b""
        except BaseException:  # an interrupt: the answer that is still to come is not the next picture's
            self.end()
            raise
        finally:
            watch.cancel()


_child, _lock = _Child(), threading.Lock()
atexit.register(_child.end)


def serve() -> None:
    """Answers pictures from standard input on standard output, until that is closed: the process' main function."""
    given, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints is no answer
    ready: set[str] = set()
    Image.MAX_IMAGE_PIXELS = None  # `_decode` has our limit; Pillow would also warn, on the user's terminal
    _limit()
    with contextlib.suppress(ValueError):  # the other side has ended
        while True:
            asked, data = _receive(given)
            answer, pixels = _decode(data, asked["form"], ready)
            if is_large := len(pixels) > _LARGE:
                give_back_freed_memory()  # the other side needs as much now
            _send(answers, answer, pixels)
            data = pixels = b""
            if is_large:
                give_back_freed_memory()


def _limit() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):  # no Linux: the time is limited all the same
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        most = taken + _MEMORY + 2**28  # the plug-ins
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _decode(data: bytes, form: str, ready: set[str]) -> tuple[dict[str, Any], bytes]:
    _, module, pillow = _FORMS[form]
    try:
        if form not in ready:
            plugin = __import__(module)
            if hasattr(plugin, "register_heif_opener"):
                plugin.register_heif_opener(thumbnails=False)
            ready.add(form)
        with Image.open(io.BytesIO(data), formats=[pillow]) as opened:
            if opened.width * opened.height > MAX_PIXELS or max(opened.size) > MAX_SIDE:
                return {"error": f"too large: {opened.width} by {opened.height} pixels"}, b""
            opened.load()
            picture: Image.Image = opened
            if picture.mode == "I;16":
                picture = picture.point(lambda value: value / 256).convert("L")
            elif picture.mode not in _MODES:
                picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
            return {"mode": picture.mode, "size": picture.size}, picture.tobytes()
    except ImportError:
        return {"error": f"which needs an extra; {install('predict,formats')}"}, b""
    except MemoryError:
        return {"error": "and takes more memory to decode than is allowed"}, b""
    except UnidentifiedImageError:  # its words name an object in memory
        return {"error": "but is damaged"}, b""
    except Exception as error:  # the plug-ins answer damaged data with almost any exception
        said = " ".join(str(error).split()).split(". ")[0]  # what follows is how to build the plug-in
        return {"error": f"but is damaged ({said or type(error).__name__})"}, b""


def _send(stream: IO[bytes], about: dict[str, Any], content: bytes) -> None:
    head = json.dumps({**about, "bytes": len(content)}).encode() + b"\n"
    stream.write(head)
    stream.write(content)
    stream.flush()


def _receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    about = json.loads(stream.readline() or b"?")
    content = stream.read(about["bytes"])
    if len(content) < about["bytes"]:
        raise ValueError("cut short")
    return about, content
