"""Bad pictures, thousands at once, through `facefeat prepare` and `facefeat predict`, as a user runs them."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from facefeat_jax.data._outside import form_of
from facefeat_jax.system.text import format_size
from faults.archives import TIMEOUT_S, failure_of, read_rows, run_zip
from faults.corpus import Bad, write_classics, write_crafted, write_large, write_mutated
from faults.decoding import MOST_BYTES, MOST_SECONDS, MOST_SECONDS_OUTSIDE, measured
from faults.processes import facefeat, random_run
from faults.processes import run as run_command
from faults.tally import Tally

DEFAULT_COUNT = 6000
_CRAFTED = 10  # one file in so many claims or costs much, or has samples of more than eight bits
_GOOD = 60  # pictures that nothing is wrong with, between the others


def run(work: Path, *, count: int, seed: int) -> Tally:
    """Spoils `count` files; counts each once, as survived where both commands answered for it as they should."""
    tally = Tally(
        "pictures",
        "Damaged files of every format that Pillow and its plug-ins for HEIC and JPEG XL write, small files made to "
        "cost gigabytes or minutes, samples of more than eight bits, and the usual problems of downloads. One call of "
        "`facefeat prepare` and one of `facefeat predict` get all of them. Both must finish in time and in bounded "
        "memory, name each bad file once with its reason, agree about it, note odd pictures, and handle the good "
        "pictures between them as usual. Then each picture is decoded by itself, in one process that calls the same "
        f"functions. Its processor time and memory are bounded too ({MOST_SECONDS:.0f} s, or "
        f"{MOST_SECONDS_OUTSIDE:.0f} s for HEIC and JPEG XL, which are decoded in a process of their own; "
        f"{format_size(MOST_BYTES)} above what the processes need)",
    )
    download = work / "download"
    folder = download / "train"
    crafted = count // _CRAFTED
    bad = [
        *write_mutated(folder, count - crafted, seed),
        *write_crafted(folder, crafted, seed),
        *write_classics(folder, seed),
        *write_large(folder),
    ]
    good = _write_good(download, seed)
    labelled = [one.name for one in bad if one.name.isascii()] + good
    _write_labels(download, labelled)
    wrong: dict[str, str] = {}  # by name: what a command did wrong
    prepared = _prepare(work, download, bad, good, wrong), _prepare_alone(work, seed)
    predicted = tuple(_predict(work, download, bad, good, wrong))
    for name, (peak, alone) in (("prepare", prepared), ("predict", predicted)):
        if peak - alone > MOST_BYTES:
            wrong[f"memory of {name}"] = f"{format_size(peak)}, with good pictures alone {format_size(alone)}"
    seconds, size = _each(download, bad, good, work, wrong)
    for one in bad:
        tally.add(one.name not in wrong, one.kind, f"{one.name!r}: {wrong.pop(one.name, '')}")
    for name in good:
        tally.add(name not in wrong, "good pictures between the bad ones", f"{name}: {wrong.pop(name, '')}")
    for name, reason in wrong.items():
        tally.add(False, "memory" if name.startswith("memory of ") else "command", f"{name}: {reason}")
    run_zip(work, seed, tally)
    tally.what += (
        f". Most memory: prepare {format_size(prepared[0])} (with good pictures alone {format_size(prepared[1])}), "
        f"predict {format_size(predicted[0])} (alone {format_size(predicted[1])}). The slowest picture took "
        f"{seconds:.1f} s of processor time, the largest {format_size(size)}"
    )
    return tally


def _each(
    download: Path, bad: Sequence[Bad], good: Sequence[str], work: Path, wrong: dict[str, str]
) -> tuple[float, int]:
    """Decodes each picture by itself; returns the most processor seconds and bytes that one took."""
    names = [one.name for one in bad if one.name.isascii()] + list(good)
    found = measured(download, names, work)
    if not set(good) <= found.keys():
        wrong["each picture"] = f"only {len(found):,} of {len(names):,} were gone through"
    for name, (seconds, size) in found.items():
        is_outside = form_of((download / name).read_bytes()) is not None
        if seconds > (MOST_SECONDS_OUTSIDE if is_outside else MOST_SECONDS) or size > MOST_BYTES:
            wrong.setdefault(name, f"took {seconds:.1f} s of processor time and {format_size(size)}")
    return max(seconds for seconds, _ in found.values()), max(size for _, size in found.values())


def _write_good(download: Path, seed: int) -> list[str]:
    from facefeat_jax.avatars import draw

    names = []
    for number in range(_GOOD):
        name = f"{'val' if number % 3 == 0 else 'train'}/{number:05}-good.jpg"
        (download / name).parent.mkdir(exist_ok=True)
        draw(seed, 1000 + number).image.convert("RGB").resize((64, 64)).save(download / name, quality=95)
        names.append(name)
    return names


def _write_labels(download: Path, names: Sequence[str]) -> None:
    for split in ("train", "val"):
        with (download / f"fairface_label_{split}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "age", "gender", "race"])
            for number, name in enumerate(name for name in names if name.startswith(f"{split}/")):
                # No group may reach the quota of the baseline's selection.
                writer.writerow([name, "3-9", ("Male", "Female")[number % 2], f"group {number // 1000}"])


def _prepare(work: Path, download: Path, bad: Sequence[Bad], good: Sequence[str], wrong: dict[str, str]) -> int:
    command = facefeat("prepare", "fairface", "--from", download, "--data-dir", work / "data")
    ended = run_command(command, work, timeout=TIMEOUT_S)
    if ended.code or not ended.in_time:
        wrong["prepare"] = failure_of(1, ended.in_time, ended.err)
        return ended.peak_bytes
    (folder,) = (work / "data" / "fairface").glob("[0-9]*")
    kept = {row["source_file"] for path in folder.glob("records-*.csv") for row in read_rows(path)}
    left_out = read_rows(folder / "left_out.csv")
    named = Counter(row["file"] for row in left_out)
    reasons = {row["file"]: row["detail"] for row in left_out}
    for one in bad:
        # A name that is not UTF-8 is listed as Python shows it.
        name = ascii(one.name)[1:-1] if not one.name.isascii() else one.name
        usable = False if name != one.name else one.usable
        if (name in kept) + named[name] != 1:
            wrong[one.name] = f"kept {name in kept}, and named {named[name]} times among those left out"
        elif usable is not None and (name in kept) != usable:
            wrong[one.name] = f"kept {name in kept}: {reasons.get(name)}"
        elif name in named and not reasons[name]:
            wrong[one.name] = "left out without a reason"
    for name in good:
        if name not in kept:
            wrong[name] = f"left out: {reasons.get(name)}"
    return ended.peak_bytes


def _prepare_alone(work: Path, seed: int) -> int:
    """Returns the most memory that `prepare` holds with good pictures alone."""
    clean = work / "clean"
    clean.mkdir()
    _write_labels(clean, _write_good(clean, seed))
    command = facefeat("prepare", "fairface", "--from", clean, "--data-dir", work / "clean data")
    return run_command(command, work, timeout=TIMEOUT_S).peak_bytes


def _predict(
    work: Path, download: Path, bad: Sequence[Bad], good: Sequence[str], wrong: dict[str, str]
) -> Iterator[int]:
    trained = random_run(work)
    # Good ones between the bad ones.
    names = [one.name for one in bad]
    step = max(1, len(names) // len(good))
    for number, name in enumerate(good):
        names.insert(number * (step + 1), name)
    # Names with line breaks in them can't be given on standard input, where each is a line.
    ended = run_command(
        [*facefeat("predict", trained, "--out", work / "answers.jsonl"), *(str(download / name) for name in names)],
        work,
        timeout=TIMEOUT_S,
    )
    yield ended.peak_bytes
    if failure := failure_of(ended.code, ended.in_time, ended.err):
        wrong["predict"] = failure
    answers = _answers(work / "answers.jsonl")
    if [_name(answer) for answer in answers] != [str(download / name) for name in names]:
        wrong["order of predict"] = f"{len(answers)} answers for {len(names)} pictures, or in another order"
    found = {
        name.removeprefix(f"{download}/"): answer for name, answer in zip(map(_name, answers), answers, strict=True)
    }
    prepared = (work / "data" / "fairface").glob("[0-9]*/records-*.csv")
    kept = {row["source_file"] for path in prepared for row in read_rows(path)}
    for one in bad:
        answer = found.get(one.name)
        has_heads = "heads" in (answer or {})
        if answer is None or has_heads == bool(answer.get("error")) or one.usable not in (None, has_heads):
            wrong.setdefault(one.name, f"predict answers {answer}")
        elif one.name.isascii() and ("heads" in answer) != (one.name in kept):
            wrong.setdefault(one.name, f"prepare kept it: {one.name in kept}, predict answers {answer}")
        elif "error" in answer and "\n" in answer["error"]:
            wrong.setdefault(one.name, "the reason is more than a line")
        elif one.is_noted and not answer.get("note"):
            wrong.setdefault(one.name, "nothing is said of what is odd about it")
    alone = run_command(
        [*facefeat("predict", trained, "--out", work / "alone.jsonl"), *(str(download / name) for name in good)],
        work,
        timeout=TIMEOUT_S,
    )
    yield alone.peak_bytes
    for clean in _answers(work / "alone.jsonl"):
        name = clean["file"].removeprefix(f"{download}/")
        if not _same(clean, found.get(name, {})):
            wrong.setdefault(name, "predict gives another answer for it among bad ones than alone")


def _answers(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _name(answer: dict) -> str:
    """Returns the file's name, also where it is not UTF-8, which JSON can't hold."""
    return os.fsdecode(bytes.fromhex(answer["file_bytes"])) if "file_bytes" in answer else answer["file"]


def _same(clean: dict, other: dict) -> bool:
    if "heads" not in clean or "heads" not in other:
        return False
    return all(
        abs(other["heads"][task]["probabilities"][name] - value) < 1e-4
        for task, head in clean["heads"].items()
        for name, value in head["probabilities"].items()
    )
