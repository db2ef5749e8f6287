"""An archive with every kind of entry that wants to do harm, through `facefeat prepare`."""

from __future__ import annotations

import csv
import stat
import struct
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np

from facefeat_jax.avatars import draw
from faults.corpus import every_format
from faults.mutate import mutated
from faults.processes import facefeat
from faults.processes import run as run_command
from faults.tally import Tally

TIMEOUT_S = 1800.0  # of each command
_BOMB_BYTES, _HONEST_BYTES = 500 * 2**20, 200 * 2**20


def failure_of(code: int, in_time: bool, err: str) -> str:
    """Returns what is wrong with how a command ended, or nothing."""
    return (
        ""
        if in_time and code in (0, 2) and "Traceback" not in err
        else f"exit code {code}, in time: {in_time}: {err[-500:]}"
    )


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run_zip(work: Path, seed: int, tally: Tally) -> None:
    """One archive with all the entries that want to do harm, some spoiled pictures and enough good ones."""
    sources = every_format(seed)
    jpeg = next(data for name, data in sources.items() if name.startswith("JPEG"))
    path = work / "hostile" / "archive.zip"
    path.parent.mkdir(parents=True)
    kinds = {
        "../climbs.jpg": "zip entry that climbs out",
        "glasses/../../climbs.jpg": "zip entry that climbs out",
        "/tmp/facefeat-absolute.jpg": "zip entry with an absolute name",
        "..\\climbs too.jpg": "zip entry that climbs out",
        "C:/climbs.jpg": "zip entry with a drive",
        "glasses/link.jpg": "zip entry that is a link",
        "glasses/encrypted.jpg": "zip entry that is encrypted",
        "glasses/bzip2.jpg": "zip entry of a method that can't be bounded",
        "glasses/claims.jpg": "zip entry that claims a terabyte",
        "glasses/bomb.jpg": "zip entry that unpacks to more than it claims",
        "glasses/honest.jpg": "zip entry that unpacks to 200 MiB",
        "glasses/overlaps.jpg": "zip entry over another one's bytes",
    }
    good = [f"{('glasses', 'no_glasses')[number % 2]}/{number:03}.jpg" for number in range(16)]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in kinds:
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_BZIP2 if "bzip2" in name else zipfile.ZIP_DEFLATED
            if "link" in name:
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            size = {"glasses/bomb.jpg": _BOMB_BYTES, "glasses/honest.jpg": _HONEST_BYTES}.get(name, 0)
            archive.writestr(entry, bytes(size) if size else b"/etc/passwd" if "link" in name else jpeg)
        for number, name in enumerate(good):
            image = draw(seed, number).image.convert("RGB").resize((48, 48))
            with archive.open(name, "w") as file:
                image.save(file, "JPEG")
        spoiled = []
        for number in range(200):
            spoiled.append(f"no_glasses/spoiled {number}.jpg")
            random = np.random.RandomState([seed, 7, number])
            archive.writestr(spoiled[-1], mutated(jpeg, "cut", random, [jpeg]))
    _spoil_entries(path)
    before = {one for one in work.rglob("*") if "last." not in one.name}
    command = facefeat("prepare", "glasses", "--from", path, "--data-dir", work / "zip data")
    ended = run_command(command, work, timeout=TIMEOUT_S)
    outside = {one for one in work.rglob("*") if "last." not in one.name and "zip data" not in str(one)} - before
    failure = failure_of(ended.code, ended.in_time, ended.err)
    if failure or ended.code or outside or Path("/tmp/facefeat-absolute.jpg").exists():
        tally.add(False, "zip", failure or f"exit code {ended.code}, written elsewhere: {outside}: {ended.err[-500:]}")
        return
    (folder,) = (work / "zip data" / "glasses").glob("[0-9]*")
    named = Counter(row["file"] for row in read_rows(folder / "left_out.csv"))
    kept = {row["source_file"] for one in folder.glob("records-*.csv") for row in read_rows(one)}
    for name, kind in kinds.items():
        shown = name.replace("\\", "/")
        times = named[shown] + (shown in kept)
        tally.add(times == 1 and shown not in kept, kind, f"{name}: named {named[shown]} times, kept {shown in kept}")
    for name in spoiled:
        tally.add(named[name] + (name in kept) == 1, "cut picture in a zip", f"{name}: named {named[name]} times")
    lost = [name for name in good if name not in kept]
    tally.add(not lost, "good pictures in that zip", f"{lost} are not kept")


def _spoil_entries(path: Path) -> None:
    """Sets in the table of contents what no archiver writes."""
    raw = bytearray(path.read_bytes())
    at, places = 0, {}
    while (at := raw.find(b"PK\x01\x02", at)) >= 0:
        (length,) = struct.unpack_from("<H", raw, at + 28)
        places[bytes(raw[at + 46 : at + 46 + length]).decode()] = at
        at += 46
    raw[places["glasses/encrypted.jpg"] + 8] |= 1
    struct.pack_into("<I", raw, places["glasses/claims.jpg"] + 24, 0xFFFFFFF0)
    struct.pack_into("<I", raw, places["glasses/bomb.jpg"] + 24, 2000)
    # Where the first entry lies, which is not one that is read, so that no good one is hit.
    at = places["glasses/overlaps.jpg"]
    raw[at + 42 : at + 46] = raw[places["../climbs.jpg"] + 42 : places["../climbs.jpg"] + 46]
    path.write_bytes(raw)
