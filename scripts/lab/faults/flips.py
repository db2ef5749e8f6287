"""Bits that flip in the files of a run folder, and what the commands that read them make of it.

    python -m faults.flips WORK FIRST LAST SEED      # what the campaign starts: one line of JSON per flip

After each flip the answers have to be the same, or those of the checkpoint before, with a line that says so, or none at
all, with one line that says why.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from faults import cases
from faults.tally import Tally
from faults.workplace import WHOLE_TRUNK, Place

_PICTURES = 4
_FALLBACK = "using the previous one"


def run(work: Path, *, count: int, seed: int) -> Tally:
    """Flips `count` bits, one at a time, in files drawn from all of a run folder."""
    tally = Tally(
        "flipped bits in a run folder",
        "Each fault flips one bit in a random file of a run folder. Three outcomes are correct: the same answer, the "
        "answer of the previous checkpoint with a line about it, or one line that says why there is no answer. The "
        "check runs `predict`; every tenth time `evaluate`, every twentieth time `train --resume`",
    )
    place = Place(work, WHOLE_TRUNK)
    place.finish(place.prepare_command(place.data))
    place.finish(place.train_command(work / "run"))
    cases.follow(__name__, tally, work, count, seed)
    return tally


def main(work: Path, first: int, last: int, seed: int) -> None:
    """Tries the flips from `first` to `last` and prints a line of JSON for each."""
    from facefeat_jax import avatars
    from facefeat_jax.data import _drawn as drawn
    from faults.child import TRAIN_SIZE, VAL_SIZE

    drawn.TRAIN_SIZE, drawn.VAL_SIZE = TRAIN_SIZE, VAL_SIZE
    pictures = [avatars.draw(seed + 50_000, number).image for number in range(_PICTURES)]
    run, copy = work / "run", work / "flipped"
    files = sorted(path.relative_to(run) for path in run.rglob("*") if path.is_file() and path.stat().st_size)
    kinds = sorted({_kind(file) for file in files})
    steps = sorted((path for path in (run / "checkpoints").iterdir() if path.name.isdigit()), key=lambda p: int(p.name))
    expected: dict[str, tuple[Any, Any]] = {}

    def answers_of(command: str, folder: Path) -> Any:
        if command == "predict":
            return _predicted(folder, pictures)
        return _COMMANDS[command](folder, work / "data", pictures)

    def good_and_before(command: str) -> tuple[Any, Any]:
        """Returns the answers of the whole run, and those where its newest checkpoint is gone."""
        if command not in expected:
            found = []
            for is_newest in (True, False):
                with _copied(run, copy):
                    if not is_newest:
                        shutil.rmtree(copy / "checkpoints" / steps[-1].name)
                    found.append(answers_of(command, copy))
            # A resumed run is whole again, whatever was gone; only what then reads it may take the checkpoint before.
            expected[command] = (found[0], found[1] if command != "resume" else good_and_before("predict")[1])
        return expected[command]

    def prepare(number: int) -> tuple[str, Callable[[], str]]:
        random = np.random.RandomState([seed, 23, number])
        command = "resume" if number % 20 == 7 else "evaluate" if number % 10 == 3 else "predict"
        # First the kind of file: most of them are Orbax's.
        kind = kinds[random.randint(len(kinds))]
        of_kind = [file for file in files if _kind(file) == kind]
        file = of_kind[random.randint(len(of_kind))]

        def attempt() -> str:
            good, before = good_and_before(command)
            with _copied(run, copy):
                at, bit = _flip(copy / file, random)
                failure = _tried(lambda: answers_of(command, copy), good, before)
            return f"bit {bit} of byte {at} of {file}: {failure}" if failure else ""

        return f"{command}: {kind}", attempt

    cases.each(first, last, prepare)


def _tried(answers: Callable[[], Any], good: Any, before: Any) -> str:
    """Returns what is wrong with what a command made of a flip, or nothing."""
    from facefeat_jax.system.errors import UserError

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            found = answers()
    except UserError as error:
        return "" if "\n" not in str(error).strip() else f"not one line: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    if found == good or (found == before and _FALLBACK in said.getvalue()):
        return ""
    return f"other answers, and it said {said.getvalue()[-200:]!r}"


def _predicted(folder: Path, pictures: list[Any]) -> Any:
    from facefeat_jax import Predictor

    return [
        (one.error, {task: (head.probabilities, head.unsure) for task, head in one.heads.items()})
        for one in Predictor.from_run(folder).predict(pictures)
    ]


def _evaluated(folder: Path, data: Path, pictures: list[Any]) -> Any:
    del pictures
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        _command("evaluate", str(folder), "--data-dir", str(data), "--json")
    heads = json.loads(out.getvalue())["heads"]
    return {
        task: (found["accuracy"], found["loss"], found["calibration"]["temperature"]) for task, found in heads.items()
    }


def _resumed(folder: Path, data: Path, pictures: list[Any]) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        options = ["--run", str(folder), "--data-dir", str(data), *WHOLE_TRUNK, "--resume"]
        _command("train", "avatars", *options)
    return _predicted(folder, pictures)


def _command(*words: str) -> None:
    """Runs a command in this process.

    Raises:
      UserError: it ended with 2 and one line.
      RuntimeError: it ended otherwise.
    """
    from facefeat_jax import cli
    from facefeat_jax.system.errors import UserError

    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = cli.main(list(words))
    lines = said.getvalue().strip().splitlines()
    if code == 2 and lines and lines[-1].startswith("facefeat: "):
        raise UserError(lines[-1])
    if code:
        raise RuntimeError(f"exit code {code}: {said.getvalue()[-300:]}")
    print(said.getvalue(), file=sys.stderr)


_COMMANDS: dict[str, Callable[[Path, Path, list[Any]], Any]] = {"evaluate": _evaluated, "resume": _resumed}


@contextlib.contextmanager
def _copied(run: Path, copy: Path) -> Iterator[None]:
    """Holds a copy of the run folder."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy)
    try:
        yield
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _flip(path: Path, random: np.random.RandomState) -> tuple[int, int]:
    content = bytearray(path.read_bytes())
    at, bit = int(random.randint(len(content))), int(random.randint(8))
    content[at] ^= 1 << bit
    path.write_bytes(content)
    return at, bit


def _kind(file: Path) -> str:
    """Returns which kind of file it is: Orbax names those of arrays at random."""
    if file.parts[0] == "checkpoints":
        inside = file.parts[2:]
        return "a checkpoint's arrays" if "d" in inside else f"a checkpoint's {'/'.join(inside)}"
    return "tensorboard" if file.parts[0] == "tensorboard" else str(file)


if __name__ == "__main__":
    cases.call(main)
