"""OpenCV's YuNet, fetched once: the face finder that `--face-model yunet` asks for."""

from __future__ import annotations

from pathlib import Path

from facefeat_jax.prediction._faces import is_asked_for
from facefeat_jax.system.progress import say
from facefeat_jax.system.runtime import cache_dir
from weights_conversion.download import DownloadError, PublishedFile, fetch_file

YUNET = PublishedFile(
    name="YuNet",
    file="face_detection_yunet_2023mar.onnx",
    # It lies in Git LFS; the plain address of the repository gives a pointer to it.
    url="https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models/face_detection_yunet/"
    "face_detection_yunet_2023mar.onnx",
    sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    size=232_589,
)
"""Of opencv_zoo, MIT."""


def face_model_file(given: Path | None) -> Path | None:
    """Returns the file of a face model: the given one, or YuNet's; None for the Haar cascade.

    Where YuNet can't be fetched, a line reports it, and the cascade finds the faces.
    """
    if not is_asked_for(given):
        return given
    try:
        return fetch_file(YUNET, cache_dir() / "faces")
    except DownloadError as error:
        say(f"{error}. Finding faces with OpenCV's Haar cascade instead")
        return None
