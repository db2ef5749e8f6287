"""Counts the packages of each extra and their megabytes, and writes the table of docs/install.md.

    python scripts/lab/count_packages.py

Nothing is installed: pip resolves, on this machine's Python and under constraints.txt, what it would take from the
package index; then the wheels are downloaded and the sizes of what is in them added up.
"""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from facefeat_jax.system.markdown import table

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/install.md"
# What the extras are for; those after `train` are counted beside `predict`.
EXTRAS = {
    "": "use the trunks, heads and torchvision's weights; `facefeat models`, `convert`, `export`, `doctor`",
    "predict": "predict on pictures: `facefeat predict`",
    "train": "everything: data sets, training, evaluation, reports, benchmark",
    "faces": "OpenCV, which finds [faces in photographs](photographs.md)",
    "video": "PyAV, with FFmpeg, for [frames of videos](predict.md)",
    "formats": "Pillow's plug-ins for HEIC and JPEG XL",
    "onnx": "[ONNX files](exporting.md), written and run",
    "stablehlo": "[StableHLO files](exporting.md)",
    "serve": "`facefeat serve`, which [answers over HTTP](serving.md)",
    "shards": "fsspec and pyarrow, for [millions of pictures](many_machines.md)",
    "s3": "shards in S3",
    "ray": "Ray Data, for shards on many machines",
    "hub": "[models from and to the Hugging Face Hub](weights.md#the-hugging-face-hub)",
}
BASE = "predict"
ALONE = ("", BASE, "train")
_TABLE = re.compile(r"(?<=<!-- written by scripts/lab/count_packages.py -->\n).*?(?=<!-- end -->)", re.DOTALL)


def packages(extra: str) -> dict[str, str]:
    """Returns the versions of the packages that pip would install, by name, this project's left out."""
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    wanted = f"{ROOT}[{extra}]" if extra else str(ROOT)
    command = [*pip, "-c", str(ROOT / "constraints.txt"), wanted]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = {one["metadata"]["name"]: one["metadata"]["version"] for one in json.loads(answer.stdout)["install"]}
    return {name: version for name, version in found.items() if name.lower() != "facefeat-jax"}


def megabytes(found: dict[str, str], known: dict[str, float]) -> float:
    """Returns how much packages are, unpacked; `known` is filled with those that were downloaded."""
    missing = [f"{name}=={version}" for name, version in found.items() if f"{name}=={version}" not in known]
    for one in missing:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", folder, one]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            (file,) = Path(folder).iterdir()
            known[one] = _unpacked(file) / 1e6
    return sum(known[f"{name}=={version}"] for name, version in found.items())


def _unpacked(file: Path) -> int:
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            return sum(part.file_size for part in wheel.infolist())
    with tarfile.open(file) as source:  # a few have no wheel
        return sum(part.size for part in source if part.name.endswith(".py"))


def main() -> None:
    rows, known, base = [], {}, {}
    for extra, what in EXTRAS.items():
        found = packages(extra)
        base = found if extra == BASE else base
        counted = found if extra in ALONE else {name: found[name] for name in found if name not in base}
        plus = "" if extra in ALONE else "+"
        size = megabytes(counted, known)
        # With the project itself, where it is the whole.
        rows.append(
            (f"`{extra}`" if extra else "none", what, f"{plus}{len(counted) + (not plus)}", f"{plus}{size:,.0f}")
        )
        print(*rows[-1], flush=True)
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")


def written(page: str, rows: list[tuple[str, str, str, str]]) -> str:
    """Returns the page with the table in its place."""
    assert _TABLE.search(page), f"{PAGE} has no place for the table"
    lines = table(("extra", "what it brings", "packages", "MB"), rows, texts=2)
    version = ".".join(map(str, sys.version_info[:2]))
    where = f"on Linux with Python {version} and the versions of `constraints.txt`"
    note = f"Counted {where}, {datetime.date.today()}; megabytes of unpacked wheels."
    return _TABLE.sub(lambda _: "\n".join(["", *lines, "", note, "", ""]), page)


if __name__ == "__main__":
    main()
