"""What a run was trained and validated on: the identity of its data, kept in the run folder.

`data.json` names the data sets with their fingerprints, `data.npy` has a line for each picture: the digest of its file
(`data._digests`) and its labels. Pictures are the same where their digests are, whatever they are called.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facefeat_jax.data.examples import Examples
from facefeat_jax.runs import run_folder
from facefeat_jax.system import checked_json
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.files import read_regular

_DIGEST, _LABEL = "digest", "label_"
_MAX_BYTES = 2**30


@dataclass(frozen=True, eq=False)
class Part:
    """The pictures of one split that a run used."""

    source: str  # name of the data set
    split: str  # `train` or `val`
    fingerprint: str  # fingerprint of the whole split (`data.dataset.Split`)
    pictures: np.ndarray  # `[n]`, in order; fields: `digest` (uint64) and, for each head, `label_TASK` (int16)

    @property
    def digests(self) -> np.ndarray:
        """Digests of the pictures' files, `[n]`, uint64."""
        return self.pictures[_DIGEST]


@dataclass(frozen=True, eq=False)
class DataRecord:
    """What a run was trained and validated on.

    Attributes:
      training: the splits that were trained on.
      validation: the splits that were validated on.
    """

    training: tuple[Part, ...]
    validation: tuple[Part, ...]

    @classmethod
    def of(cls, training: Examples, validation: Examples) -> DataRecord:
        """Returns the record of pictures at hand."""
        return cls(parts_of(training), parts_of(validation))

    @property
    def trained(self) -> np.ndarray:
        """Digests of all pictures that were trained on, uint64."""
        return np.concatenate([part.digests for part in self.training])

    def checksum(self) -> int:
        """Returns a number, less than 2**31, that changes with anything in the record."""
        return int(self._json()["pictures"][:7], 16)

    def write(self, run: Path) -> None:
        """Writes the record into a run folder.

        Raises:
          UserError: it can't be written.
        """
        run_folder.write_file(run / run_folder.PICTURES, self._array())
        run_folder.write_json(run / run_folder.DATA, checked_json.with_digest(self._json()))

    @classmethod
    def read(cls, run: Path) -> DataRecord | None:
        """Returns the record of a run; None where it has none: earlier versions wrote none, nor does `convert`.

        Raises:
          UserError: it is damaged.
        """
        about, array = run / run_folder.DATA, run / run_folder.PICTURES
        if not about.exists() and not array.exists():
            return None
        try:
            values, is_checked = checked_json.read_checked(about)
            if not is_checked:
                raise ValueError("it has no digest")
            content = read_regular(array, _MAX_BYTES)
            if hashlib.sha256(content).hexdigest() != values["pictures"]:
                raise ValueError(f"{array.name} is not what was written")
            pictures = np.load(io.BytesIO(content), allow_pickle=False)
            parts, first = [], 0
            for part in values["parts"]:
                end = first + part["count"]
                parts.append(Part(part["source"], part["split"], part["fingerprint"], pictures[first:end]))
                first = end
            by_split = {split: tuple(part for part in parts if part.split == split) for split in ("train", "val")}
            return cls(by_split["train"], by_split["val"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
            raise UserError(
                f"{about}, the record of the run's data, can't be read ({reason}); restore it, or delete "
                f"{run_folder.DATA} and {run_folder.PICTURES} to open the run without this check"
            ) from error

    def _json(self) -> dict[str, Any]:
        parts = [
            {
                "source": part.source,
                "split": part.split,
                "fingerprint": part.fingerprint,
                "count": len(part.pictures),
            }
            for part in self.training + self.validation
        ]
        return {"parts": parts, "pictures": hashlib.sha256(self._array()).hexdigest()}

    def _array(self) -> bytes:
        file = io.BytesIO()
        np.save(file, np.concatenate([part.pictures for part in self.training + self.validation]), allow_pickle=False)
        return file.getvalue()


def parts_of(examples: Examples) -> tuple[Part, ...]:
    """Returns the pictures of each split that examples are made of."""
    fields = [(_DIGEST, "<u8")] + [(_LABEL + task, "<i2") for task in examples.labels]
    pictures = np.empty(len(examples), fields)
    pictures[_DIGEST] = examples.digests()
    for task, labels in examples.labels.items():
        pictures[_LABEL + task] = labels
    ends = np.cumsum([len(rows) for rows in examples.rows])[:-1]
    return tuple(
        Part(split.source, split.split, split.fingerprint, chosen)
        for split, chosen in zip(examples.splits, np.split(pictures, ends), strict=True)
    )


def is_unchanged(part: Part, before: Sequence[Part]) -> bool:
    """Returns whether a split is as it was in a record."""
    return any(
        (earlier.source, earlier.split) == (part.source, part.split)
        and (earlier.fingerprint == part.fingerprint or difference(earlier, part) is None)
        for earlier in before
    )


def difference(before: Part, now: Part) -> str | None:
    """Returns what differs between the pictures of a split, in words; None where nothing does."""
    name = f"{before.source} {before.split}"
    gone = int(np.sum(~np.isin(before.digests, now.digests)))
    new = int(np.sum(~np.isin(now.digests, before.digests)))
    if gone or new:
        return f"{name}: {gone:,} of {len(before.digests):,} pictures are missing, {new:,} are new"
    if not np.array_equal(np.sort(before.digests), np.sort(now.digests)):
        return f"{name}: the same pictures, but not as often: {len(before.digests):,} before, {len(now.digests):,} now"
    if np.any(before.digests != now.digests):
        return f"{name}: the same pictures in another order"
    fields = set(before.pictures.dtype.names or ()) & set(now.pictures.dtype.names or ())
    if changed := int(np.sum(np.any([before.pictures[field] != now.pictures[field] for field in fields], axis=0))):
        return f"{name}: {changed:,} of {len(before.digests):,} pictures have another label"
    return None


def require_same(run: Path, now: DataRecord) -> str | None:
    """Compares the data that a run is resumed with to those that it was started with.

    Returns:
      What to report where that can't be done: the run has no record.

    Raises:
      UserError: they differ, or the record is damaged.
    """
    before = DataRecord.read(run)
    if before is None:
        return without_record(run)
    pairs = zip(before.training + before.validation, now.training + now.validation, strict=False)
    if found := [text for earlier, other in pairs if (text := difference(earlier, other))]:
        raise UserError(
            f"the data are not those that {run} was started with ({'; '.join(found)}); prepare the original data, or "
            "train again with --overwrite or another --run"
        )
    return None


def copies_note(copies: int, count: int) -> str:
    """Returns what to report of validation pictures that are copies of training pictures.

    Args:
      copies: number of the copies.
      count: number of all validation pictures.
    """
    return f"{copies:,} of {count:,} validation pictures are copies of training pictures; `facefeat audit` lists them"


def without_record(run: Path) -> str:
    """Returns what to report of a run that has no record of its data."""
    return (
        f"{run} has no {run_folder.DATA} (an earlier version trained it): whether the data are those that it was "
        "trained on can't be checked"
    )
