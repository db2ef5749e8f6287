"""Tiny made-up downloads, laid out as the real ones are."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ..made import encoded, noise


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """Returns a function that makes the bytes of a picture file of noise."""

    def make(
        seed: int = 0, form: str = "JPEG", size: tuple[int, int] = (20, 16), mode: str = "RGB", **options
    ) -> bytes:
        return encoded(noise(size[1], size[0], seed).convert(mode), form, **options)

    return make


@pytest.fixture
def lay_out(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that puts named contents into a folder."""

    def write(files: dict[str, bytes], folder: str = "download") -> Path:
        root = tmp_path / folder
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        return root

    return write


@pytest.fixture
def pack(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that puts named contents into a zip."""

    def write(files: dict[str, bytes], name: str = "archive.zip") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for entry, content in files.items():
                archive.writestr(entry, content)
        return path

    return write


@pytest.fixture
def fairface_files(picture) -> dict[str, bytes]:
    """FairFace with 12 and 6 pictures."""
    files = {}
    for split, count in (("train", 12), ("val", 6)):
        lines = ["file,age,gender,race,service_test"]
        for number in range(1, count + 1):
            gender = ("Male", "Female")[number % 2]
            lines.append(f"{split}/{number}.jpg,9-Mar,{gender},{('Black', 'White')[number % 3 == 0]},False")
            files[f"{split}/{number}.jpg"] = picture(number)
        files[f"fairface_label_{split}.csv"] = "\n".join(lines).encode() + b"\n"
    return files


@pytest.fixture
def glasses_files(picture) -> dict[str, bytes]:
    """The glasses set with 8 + 7 pictures."""
    return {
        f"Images/{folder}/{number:03}.jpg": picture(number + 100 * len(folder))
        for folder, count in (("glasses", 8), ("no_glasses", 7))
        for number in range(count)
    }


@pytest.fixture
def apparel_files(picture) -> dict[str, bytes]:
    """The apparel set with 10 pictures that are selected and 2 that are not."""
    return {
        f"{folder}/{number}.{suffix}": picture(number + 10 * len(folder), "PNG" if suffix == "png" else "JPEG")
        for folder, suffix, count in (("black_dress", "jpg", 4), ("red_shirt", "png", 6), ("blue_shoes", "jpg", 2))
        for number in range(count)
    }
