"""Videos: each frame that is taken is a picture, named `film.mp4#t=12.480`: the video, and its time in seconds.

Its content is given as an uncompressed picture file, so that the limits and the ways of all pictures are those of
frames too. Needs the extra `video`.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from facefeat_jax.data._decoder_limits import MAX_PIXELS, MAX_SIDE, BadImageError
from facefeat_jax.system.errors import UserError

if TYPE_CHECKING:
    import av

_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts")
# No playlists and the like: they make FFmpeg open other files and addresses.
_FORMATS = "mov,matroska,webm,avi,mpeg,mpegts"
_FRAME = re.compile(r"(.+)#t=(\d+\.\d{3})", re.DOTALL)
_MOST_FRAMES = 1_000_000
_KEPT_BYTES = 2**26  # of frames that were passed: threads ask for them a little out of order


def is_video(name: str) -> bool:
    """Returns whether a file's name ends as those of videos do."""
    return name.lower().endswith(_SUFFIXES)


def frame_of(name: str) -> tuple[str, float] | None:
    """Returns the video and the seconds that the name of a frame says; None for the name of anything else."""
    found = _FRAME.fullmatch(name)
    return (found[1], float(found[2])) if found and is_video(found[1]) else None


def frames(path: str, every: int) -> list[str]:
    """Returns the names of every n-th frame of a video, in the order of their times. No frame is decoded.

    Raises:
      BadImageError: it can't be read, or has too many frames.
    """
    with _opened(path) as (container, stream):
        times = []
        for packet in container.demux(stream):
            if packet.pts is not None and packet.size:
                times.append(packet.pts)
            if len(times) > _MOST_FRAMES:
                raise BadImageError(f"a video of more than {_MOST_FRAMES:,} frames; cut it into parts")
        start = _start(stream)
        base = stream.time_base or Fraction(1)
        seconds = (max(Fraction(0), (time - start) * base) for time in sorted(times)[::every])
        return list(dict.fromkeys(f"{path}#t={float(one):.3f}" for one in seconds))


def _start(stream: Any) -> int:
    return stream.start_time or 0


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[Any, Any]]:
    import av

    options = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
    try:
        # Absolute: FFmpeg takes what is before a colon for a protocol.
        with av.open(os.path.abspath(path), options=options) as container:
            if not container.streams.video:
                raise BadImageError("a file without a video in it")
            stream = container.streams.video[0]
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            yield container, stream
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise BadImageError(f"a video that can't be read ({' '.join(str(error).split())})"[:200]) from error


class Films:
    """Gives frames of videos by their names; the last video stays open. Safe to call from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held = contextlib.ExitStack()
        self._path = ""
        self._frames: Iterator[tuple[str, av.VideoFrame]] = iter(())
        self._at = ""
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    def read(self, name: str) -> bytes:
        """Returns a frame as the content of a picture file.

        Raises:
          BadImageError: there is no such frame, or it can't be decoded.
        """
        found = frame_of(name)
        assert found
        path, seconds = found
        with self._lock:
            if path != self._path:
                self.close()
                self._container, self._stream = self._held.enter_context(_opened(path))
                self._path, self._frames, self._at = path, self._decoded(), ""
            return self._kept.pop(name, None) or self._search(name, seconds)

    def close(self) -> None:
        """Closes the video."""
        self._held.close()
        self._held, self._path = contextlib.ExitStack(), ""
        self._kept.clear()

    def _search(self, name: str, seconds: float) -> bytes:
        import av

        try:
            if self._at and seconds <= float(self._at):
                base = self._stream.time_base or Fraction(1)
                self._container.seek(int(Fraction(seconds) / base) + _start(self._stream), stream=self._stream)
                self._frames = self._decoded()
            wanted = f"{seconds:.3f}"
            for at, frame in self._frames:
                self._at = at
                if at == wanted:
                    return _as_file(frame)
                self._keep(f"{self._path}#t={at}", frame)
                if float(at) > seconds:
                    break
        except (av.error.FFmpegError, OSError) as error:
            self._frames = self._decoded()  # what comes after the damage can be read
            raise BadImageError(f"a video that can't be decoded ({' '.join(str(error).split())})"[:200]) from error
        raise BadImageError(f"{Path(self._path).name} has no frame at {seconds:.3f} s")

    def _keep(self, name: str, frame: av.VideoFrame) -> None:
        size = 3 * frame.width * frame.height
        if size > _KEPT_BYTES // 4:
            return
        self._kept[name] = _as_file(frame)
        while len(self._kept) * size > _KEPT_BYTES or len(self._kept) > 8:
            self._kept.popitem(last=False)

    def _decoded(self) -> Iterator[tuple[str, av.VideoFrame]]:
        for frame in self._container.decode(self._stream):
            if frame.pts is not None:
                base = frame.time_base or self._stream.time_base
                yield f"{max(0.0, float((frame.pts - _start(self._stream)) * base)):.3f}", frame


def _as_file(frame: av.VideoFrame) -> bytes:
    if frame.width * frame.height > MAX_PIXELS or max(frame.width, frame.height) > MAX_SIDE:
        raise BadImageError(f"too large: a frame of {frame.width} by {frame.height} pixels")
    pixels = np.rot90(frame.to_ndarray(format="rgb24"), round(getattr(frame, "rotation", 0) / 90))
    height, width, _ = pixels.shape
    return b"P6 %d %d 255\n" % (width, height) + pixels.tobytes()


class Reel:
    """Writes pictures as the frames of a video.

    Attributes:
      path: the file.
      count: how many it has written.

    Args:
      path: the file; the suffix is .mp4.

    Raises:
      UserError: the file can't be written; so do its methods.
    """

    def __init__(self, path: Path):
        import av

        self.path, self.count = path, 0
        # In fragments: it can be played where its writer was stopped.
        options = {"movflags": "frag_keyframe+empty_moov"}
        with self._reported():
            self._container = av.open(os.path.abspath(path), "w", options=options)
        self._stream: Any = None
        self._last = -1

    def add(self, picture: Image.Image, seconds: float) -> None:
        """Adds a frame, mode RGB, in the size of the first; one that is not later than the last is left out."""
        import av

        time = round(1000 * seconds)
        if time <= self._last:  # the same video again
            return
        with self._reported():
            if self._stream is None:
                self._stream = self._container.add_stream("mpeg4", rate=1000)
                self._stream.width, self._stream.height = (max(2, side // 2 * 2) for side in picture.size)
                self._stream.pix_fmt, self._stream.bit_rate = "yuv420p", 8_000_000
                self._stream.codec_context.time_base = Fraction(1, 1000)
            frame = av.VideoFrame.from_image(picture.resize((self._stream.width, self._stream.height)))
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            self._container.mux(self._stream.encode(frame))
        self._last, self.count = time, self.count + 1

    def close(self) -> None:
        """Writes what is left."""
        with self._reported():
            if self._stream is not None:
                self._container.mux(self._stream.encode(None))
            self._container.close()

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        import av

        try:
            yield
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise UserError(f"{self.path} can't be written ({getattr(error, 'strerror', None) or error})") from error
