"""A worker: loads the model once, and answers one shard after the other, each into a file of its own.

A shard is done when its file stands under its name, and is never answered again. So any number of workers may be killed
and started again, on one machine or many: all files together are always the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from facefeat_jax.prediction._answer_source import AnswerSource
from facefeat_jax.prediction.answers import Tally
from facefeat_jax.runs.checkpoints import Which
from facefeat_jax.shards._listing import Listing, Shard, taken_by
from facefeat_jax.shards._reading import Pictures, open_shard
from facefeat_jax.shards._storage import Place, ShardError, create, exists, is_folder, place, reached, read_whole, write
from facefeat_jax.shards._writing import Form, Row, write_rows
from facefeat_jax.system.errors import UserError

ABOUT = "_about.json"
"""Beside the answers: what they depend on. Readers of Parquet folders pass over names that begin so."""
SOURCE = "_source.json"
"""Where the shards are: names of answers say only what they are called there."""

_ON_ACCELERATORS = 256  # pictures per batch
_ON_CPU = 32


@dataclass(frozen=True)
class Job:
    """What workers need to know; it goes to other machines.

    Attributes:
      run: the run folder or exported file, under this name on every machine.
      out: address of the folder of the answers.
      form: their format.
      listing: the shards.
      batch_size: pictures per batch; None chooses by the device.
      checkpoint: `newest` or `best`.
      faces: whether to find people.
      face_model: with which file; None for the Haar cascade.
      pattern: which files are pictures.
      image_column: column of the pictures in tables.
    """

    run: Path
    out: str
    form: Form
    listing: Listing
    batch_size: int | None = None
    checkpoint: Which = "newest"
    faces: bool = False
    face_model: Path | None = None
    pattern: str | None = None
    image_column: str | None = None

    @property
    def people(self) -> bool:
        """Whether the answers are for each person in a picture."""
        return self.faces or self.face_model is not None

    def target(self, shard: Shard) -> Place:
        """Returns the file of a shard's answers."""
        return place(self.out) / shard.output(f".{self.form}")


@dataclass(frozen=True)
class Done:
    """What became of a shard.

    Attributes:
      shard: its name.
      pictures: number of pictures with an answer.
      bad: how many of them can't be used.
      error: why it could not be read; None otherwise.
      is_new: whether it was answered now.
    """

    shard: str
    pictures: int = 0
    bad: int = 0
    error: str | None = None
    is_new: bool = True


class Worker:
    """Answers shards with a model.

    Args:
      job: what is to be done.

    Raises:
      UserError: the model or the folder can't be used, or that holds the answers of another model.
    """

    def __init__(self, job: Job):
        self._job = job
        self._open: Pictures | None = None
        self._source = self._load()
        out = place(job.out)
        _settle(out / ABOUT, self._about())
        if job.listing.sources:
            _settle(out / SOURCE, {"source": job.listing.sources})
        for folder, about in job.listing.folders.items():
            # No two names share such a file, and none is too long.
            name = hashlib.sha256(folder.encode("utf-8", "surrogateescape")).hexdigest()[:16]
            _settle(out / f"_pictures-{name}.json", about)

    def __call__(self, shard: Shard, advance: Callable[[int], object] = lambda pictures: None) -> Done:
        """Answers a shard, if that is not done yet.

        Args:
          shard: which.
          advance: called with the number of pictures that were answered since the last call.

        Raises:
          UserError: the answers can't be written.
        """
        job = self._job
        target = job.target(shard)
        if exists(target) and not is_folder(target):
            return Done(shard.name, is_new=False)
        tally = Tally()

        def content(file: IO[bytes]) -> None:
            with open_shard(shard, taken_by(job.pattern), job.image_column) as self._open:
                rows = self._rows(shard, self._open, tally, advance)
                write_rows(file, job.form, shard, rows, self._source.tasks, job.people)

        try:
            write(target, content)
        except ShardError as error:
            return Done(shard.name, error=str(error))
        finally:
            self._open = None
        return Done(shard.name, tally.pictures, tally.bad)

    def _rows(self, shard: Shard, pictures: Pictures, tally: Tally, advance: Callable[[int], object]) -> Iterator[Row]:
        key = name = None
        # What an answer needs is not the file that is written.
        with reached(f"{shard.name} can't be answered", ShardError, OSError):
            for prediction in tally.counted(self._source.stream(pictures.keys())):
                if prediction.source != key:
                    if key is not None:
                        pictures.forget(key)
                    key = prediction.source
                    name = pictures.name(key)
                    advance(1)
                assert key is not None and name is not None
                yield int(key), replace(prediction, source=name)

    def _load(self) -> AnswerSource:
        from facefeat_jax.prediction._answer_source import of_model
        from facefeat_jax.runs._about import is_exported

        job = self._job
        if is_exported(job.run):
            self._batch_size = job.batch_size or _ON_CPU
        else:
            import jax

            from facefeat_jax.system.runtime import use_compilation_cache

            use_compilation_cache()
            self._batch_size = job.batch_size or (_ON_CPU if jax.default_backend() == "cpu" else _ON_ACCELERATORS)
        return of_model(
            job.run,
            batch_size=self._batch_size,
            checkpoint=job.checkpoint,
            find_faces=job.faces,
            face_model=job.face_model,
            read=self._read,
        )

    def _read(self, key: str) -> AbstractContextManager[bytes]:
        assert self._open is not None
        return self._open.read(key)

    def _about(self) -> dict[str, Any]:
        job = self._job
        given = {"form": job.form, "image column": job.image_column, "glob": job.pattern}
        return {**given, "batch size": self._batch_size, **self._source.about()}


def _settle(file: Place, about: dict[str, Any]) -> None:
    """Writes what the answers depend on, or compares it with what other workers wrote.

    Raises:
      UserError: it differs, or can't be read.
    """
    if not exists(file):
        create(file, (json.dumps(about, indent=2, sort_keys=True) + "\n").encode())
    with reached(f"{file.address} can't be read"):
        content = read_whole(file)
    folder, _, name = file.address.rpartition("/")
    try:
        earlier = json.loads(content)
        plain = json.loads(json.dumps(about))
        differ = sorted(key for key in plain.keys() | earlier.keys() if plain.get(key) != earlier.get(key))
    except (ValueError, AttributeError):
        raise UserError(
            f"{file.address} is damaged, so the model behind these answers is unknown; give another folder"
        ) from None
    if differ:
        raise UserError(
            f"the answers in {folder} were made with {' and '.join(f'another {key}' for key in differ)} "
            f"(see {name} there); repeat the command that made them, or give another folder"
        )
