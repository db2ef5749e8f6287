"""`predict --out-folder`: lists the shards, takes this worker's share of them, and answers it here or on Ray."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from facefeat_jax.runs._about import on_hub
from facefeat_jax.runs.checkpoints import Which
from facefeat_jax.shards._listing import Shard, list_shards
from facefeat_jax.shards._reading import check_column
from facefeat_jax.shards._storage import place
from facefeat_jax.shards._work import Done, Job, Worker
from facefeat_jax.shards._writing import Form
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.progress import Bar, say
from facefeat_jax.system.text import count

_SAY_EVERY_S = 30.0  # where there is no terminal for a bar
_TASKS = ("JOB_COMPLETION_INDEX", "SLURM_ARRAY_TASK_ID")  # of Kubernetes' indexed jobs, and of SLURM's arrays


def predict_shards(
    run: Path,
    words: Sequence[str],
    out: str,
    *,
    form: Form = "parquet",
    batch_size: int | None = None,
    checkpoint: Which = "newest",
    faces: bool = False,
    face_model: Path | None = None,
    pattern: str | None = None,
    shard_size: int = 10_000,
    image_column: str | None = None,
    worker_index: int | None = None,
    num_workers: int | None = None,
    ray: str | None = None,
) -> int:
    """Answers this worker's share of shards, a file for each; returns how many pictures and shards can't be used.

    Args:
      run: the run folder, or an ONNX file that `facefeat export` wrote.
      words: tar files, Parquet tables, folders of these or of pictures, patterns; local, or addresses like `s3://...`.
      out: the folder of the answers, local or remote. `_about.json` there says what they depend on.
      form: their format.
      batch_size: pictures per batch; None takes 32 on CPU and 256 elsewhere.
      checkpoint: `newest` or `best`.
      faces: whether to find the faces, and to answer for each person.
      face_model: a YuNet file to find them with.
      pattern: which files are pictures, in folders and tar files; None goes by the ends of their names.
      shard_size: pictures in each part of a folder of pictures.
      image_column: the tables' column of encoded pictures; None finds it.
      worker_index: which share, from 0; None takes it from SLURM or Kubernetes.
      num_workers: into how many shares; None takes all. On Ray: how many workers.
      ray: address of a Ray cluster, or `local`; None answers here.

    Raises:
      UserError: a word, the model or the folder can't be used, or the numbers make no sense.
    """
    if num_workers is not None:
        _require_workers(num_workers)
    target = place(out)
    listing = list_shards(words, target, pattern=pattern, size=shard_size, suffix=f".{form}")
    job = Job(run, target.address, form, listing, batch_size, checkpoint, faces, face_model, pattern, image_column)
    check_column(listing.shards, image_column)
    everything = range(len(listing.shards))
    if ray is not None:
        from facefeat_jax.shards._ray import on_ray

        # The folder that its workers run in is another.
        where = run if on_hub(run) else run.absolute()
        job = replace(job, run=where, face_model=face_model and face_model.absolute())
        mine: Sequence[int] = everything
        found = on_ray(job, mine, ray, num_workers)
    else:
        index, number = share(worker_index, num_workers, os.environ)
        mine = everything[index::number]
        if number > 1:
            which = f"worker {index} of {number} (they count from 0)"
            say(f"facefeat: {which}: {len(mine)} of {count(len(everything), 'shard')}")
        found = _here(job, [listing.shards[n] for n in mine])
    return _watched(found, len(mine), out)


def share(index: int | None, number: int | None, environment: Mapping[str, str]) -> tuple[int, int]:
    """Returns which share of how many a worker takes.

    Raises:
      UserError: one is missing, or they don't fit together.
    """
    if number is None:
        if index is not None:
            raise UserError("--worker-index says which of several workers this is; give --num-workers as well")
        return 0, 1
    _require_workers(number)
    if index is None:
        name = next((name for name in _TASKS if environment.get(name, "").isdecimal()), None)
        if name is None:
            raise UserError(
                f"--num-workers {number} needs --worker-index, or one of {', '.join(_TASKS)} in the environment"
            )
        first = environment.get("SLURM_ARRAY_TASK_MIN", "0") if name.startswith("SLURM") else "0"
        index = int(environment[name]) - int(first if first.isdecimal() else "0")
    if not 0 <= index < number:
        raise UserError(f"--worker-index {index}: there are {number} workers, numbered from 0")
    return index, number


def _require_workers(number: int) -> None:
    if number < 1:
        raise UserError(f"--num-workers must be 1 or more, got {number}")


def _here(job: Job, shards: Sequence[Shard]) -> Iterator[Done]:
    worker = Worker(job)
    with Bar("predicting", None) as bar:
        said = time.monotonic()

        def advance(pictures: int) -> None:
            nonlocal said
            bar.advance(pictures)
            if not bar.is_shown and time.monotonic() - said > _SAY_EVERY_S:
                said = time.monotonic()
                say(f"facefeat: {bar.done:,} pictures, {bar.rate:.0f} per second; {shard.name}")

        for number, shard in enumerate(shards, 1):
            bar.note(f"shard {number:,} of {len(shards):,}: {shard.name}")
            yield worker(shard, advance)


def _watched(found: Iterator[Done], number: int, out: str) -> int:
    """Says what could not be read, and what was done in all; returns how much can't be used."""
    pictures = bad = before = failed = 0
    for done in found:
        pictures, bad, before = pictures + done.pictures, bad + done.bad, before + (not done.is_new)
        if done.error is not None:
            failed += 1
            say(f"facefeat: {done.error}; it has no answers yet")
    answered = number - before - failed
    earlier = f"; {count(before, 'shard')} had theirs" if before else ""
    say(f"wrote the answers for {count(pictures, 'picture')} of {count(answered, 'shard')} to {out}{earlier}")
    if bad:
        say(f"facefeat: {bad} of the pictures can't be used; the output has the reason for each")
    if failed:
        say(f"facefeat: {count(failed, 'shard')} can't be read; the same command answers them once they can")
    return bad + failed
