"""What the campaigns run and kill: the `facefeat` command on a small drawn data set, saying where it is.

    python child.py COMMAND ARGUMENT...
    python child.py train-and-export RUN FILE ARGUMENT...

A line `AT train`, `AT validation`, `AT checkpoint`, `AT packing` or `AT prepare` goes to standard output when such a
thing begins, so that a kill can be aimed at it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

TRAIN_SIZE, VAL_SIZE = 44, 20


def _announced(owner: Any, name: str, place: str) -> None:
    """Has a method say where it is before it begins."""
    original: Callable[..., Any] = getattr(owner, name)

    def said(*arguments: Any, **options: Any) -> Any:
        print(f"AT {place}", flush=True)
        return original(*arguments, **options)

    setattr(owner, name, said)


def main(argv: list[str]) -> int:
    """Runs the command with its places announced."""
    from facefeat_jax import cli
    from facefeat_jax.data import _drawn as drawn
    from facefeat_jax.data import _row_store as row_store

    drawn.TRAIN_SIZE, drawn.VAL_SIZE = TRAIN_SIZE, VAL_SIZE
    if argv[0] == "prepare":
        from facefeat_jax.data import prepare

        _announced(prepare, "write_all", "prepare")
        _announced(prepare, "_move_into_place", "prepare")
        return cli.main(argv)
    from facefeat_jax.evaluation.evaluate import Evaluator
    from facefeat_jax.runs.checkpoints import Checkpoints
    from facefeat_jax.training import loop

    _announced(row_store, "write_at", "packing")
    _announced(loop, "Bar", "train")  # one for each pass
    _announced(Evaluator, "logits", "validation")
    _announced(Checkpoints, "save", "checkpoint")
    if argv[0] != "train-and-export":
        return cli.main(argv)
    run, file, *arguments = argv[1:]
    code = cli.main(["train", "avatars", "--run", run, *arguments])
    return code or cli.main(["export", run, file, "--overwrite"])


if __name__ == "__main__":
    # Before jax is imported by anything: where the package lies, when it is not installed.
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    from facefeat_jax.system.main import end_process

    end_process(main(sys.argv[1:]))
