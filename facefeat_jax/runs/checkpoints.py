"""Checkpoints of a run, by Orbax.

Each holds two trees of arrays (`model`: parameters and statistics as they are evaluated; `optimizer`: what else the
training continues from) and a JSON item (`runs._about`: the model's description with its class names, the validation
results so far, and digests of both trees). The position in the index stream is the step number (`data.index_stream`),
and so is all that is drawn at random.

Orbax writes beside the final name, in the background, and renames: what has the name is complete, and the checkpoint
before is deleted only then. What a disk spoils afterwards is found by the digests.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import multihost

from facefeat_jax.runs import _about as about_item
from facefeat_jax.runs._digests import examine
from facefeat_jax.runs._orbax import Kept, quiet, reason, writing
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system.distributed import is_first
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.progress import say

FOLDER = about_item.FOLDER
Which = Literal["newest", "best"]

Trees = Mapping[str, Any]
"""The arrays of a checkpoint, by item."""

_Read = TypeVar("_Read")


class DamagedError(UserError):
    """A checkpoint can't be read, or does not hold what was written."""


class Checkpoints:
    """The checkpoints of one run folder.

    Args:
      run: the run folder; `checkpoints/` inside it is made when the first checkpoint is saved.
      keep: how many of the newest to keep.
      read_only: leave everything as it is, also what another process is writing.

    Attributes:
      folder: where they lie.
      unchecked: the steps of those read so far that an earlier version wrote without a digest of their description.
    """

    def __init__(self, run: Path, *, keep: int = 2, read_only: bool = False):
        self.folder = run.resolve() / FOLDER
        self.unchecked: set[int] = set()
        self._kept, self._read_only = Kept(keep), read_only
        if read_only:
            options = ocp.CheckpointManagerOptions(read_only=True, save_interval_steps=0, create=False)
        else:
            # What an interrupted run has half written is deleted: it takes up room that the next one needs.
            options = ocp.CheckpointManagerOptions(
                preservation_policy=self._kept, create=True, cleanup_tmp_directories=True
            )
        quiet()
        try:
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        except OSError as error:
            raise UserError(f"{self.folder} can't be used ({error.strerror or error}); give another folder") from error

    def steps(self) -> list[int]:
        """Returns the steps of the complete checkpoints, the newest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def newest_step(self) -> int | None:
        """Returns the step of the newest complete checkpoint, once what is being written is; None where there is none.

        Raises:
          UserError: it can't be written.
        """
        self.wait()
        return max(self.steps(), default=None)

    def newest(self, read: Callable[[int], _Read]) -> _Read | None:
        """Returns what `read` makes of the newest checkpoint, or None where there is none.

        Damaged checkpoints are passed over, with a message, and put aside as `STEP.damaged`, unless `read_only`.

        Args:
          read: takes a step; raises `DamagedError` where its checkpoint can't be read.

        Raises:
          UserError: none of them can be read. Nothing is put aside then.
        """
        damaged: list[tuple[int, DamagedError]] = []
        for step in self.steps():
            try:
                result = read(step)
            except DamagedError as error:
                damaged.append((step, error))
                continue
            for bad, fault in damaged:
                say(f"{fault}: using the previous one, of step {step}")
                if not self._read_only:
                    self._put_aside(bad)
            return result
        if damaged:
            raise UserError(
                f"no checkpoint in {self.folder} can be read; {damaged[0][1]}. Train again with --overwrite"
            )
        return None

    def _put_aside(self, step: int) -> None:
        place, aside = self.folder / str(step), self.folder / f"{step}.damaged"
        if is_first():
            with writing(self.folder):
                shutil.rmtree(aside, ignore_errors=True)
                place.rename(aside)
        multihost.sync_global_processes("facefeat: a damaged checkpoint is put aside")
        self._manager.reload()

    def save(self, step: int, trees: Trees, about: dict[str, Any], *, best: int | None = None) -> None:
        """Starts writing a checkpoint; the arrays may be donated as soon as this returns.

        If there is a checkpoint of that step, written before its validation was complete, its history is updated.

        Args:
          step: its number.
          trees: what it is to hold: `model` (`params` and `batch_stats`) and `optimizer`, trees of arrays.
          about: the JSON item, but for the digests.
          best: the step of the best checkpoint so far, which is kept whatever comes after.

        Raises:
          UserError: it can't be written, the checkpoint before could not, or the arrays are not finite.
        """
        self._kept.best = best
        if step in self._manager.all_steps():
            self._complete(step, about)
            return
        if jax.device_count() > 1:
            # Orbax would take a part of each array from every device. Copies that ought to be the same may differ in
            # their last bits, where devices added up in another order: what is written is what the digests are of.
            trees = jax.tree.map(np.array, dict(trees))
        finite, digests = examine(trees)
        if not finite:
            raise UserError(
                f"the weights are not finite after step {step}, though the losses were; the newest checkpoint in "
                f"{self.folder} is the last good one. Try a lower --learning-rate, or continue with --resume and "
                "--on-nonfinite skip"
            )
        item = about_item.sealed(about, digests)
        with writing(self.folder):
            self._manager.save(step, args=_to_save(trees, item))

    def _complete(self, step: int, about: Mapping[str, Any]) -> None:
        self.wait()
        written = self.about(step)
        if is_first() and "digests" in written and about.get("history") != written.get("history"):
            with writing(self.folder):
                about_item.replace(self.folder / str(step), about, written["digests"])

    def check(self) -> None:
        """Checks, without waiting, on what is written in the background.

        Raises:
          UserError: it can't be written.
        """
        with writing(self.folder):
            self._manager.check_for_errors()

    def about(self, step: int) -> dict[str, Any]:
        """Returns the JSON item of a checkpoint.

        Raises:
          DamagedError: it can't be read.
        """
        place = self.folder / str(step)
        try:
            content, is_checked = about_item.read(place)
        except (OSError, ValueError) as error:
            raise DamagedError(f"checkpoint {place} can't be restored: its description is damaged ({error})") from error
        if not is_checked:
            self.unchecked.add(step)
        return content

    def spec(self, step: int, *, before: Mapping[str, Any] | None = None) -> ModelSpec:
        """Returns what the model of a checkpoint is; `before` is for `ModelSpec.from_json`.

        Raises:
          DamagedError: it can't be read, or describes no possible model.
          UserError: it is as it was written, and this version can't build such a model.
        """
        about = self.about(step)
        try:
            where = f"the model description of checkpoint {self.folder / str(step)}"
            return ModelSpec.from_json(about.get("spec"), where=where, before=before)
        except UserError as error:
            if step in self.unchecked:
                raise DamagedError(str(error)) from error
            raise

    def restore(self, step: int, like: Trees) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the trees of a checkpoint and its JSON item.

        Args:
          step: which checkpoint.
          like: trees of the same structure, shapes and dtypes; their placement is taken.

        Raises:
          DamagedError: the checkpoint can't be read, is not what was written, or is of another structure.
        """
        about, where = self.about(step), f"checkpoint {self.folder / str(step)}"
        targets = jax.tree.map(ocp.utils.to_shape_dtype_struct, dict(like))
        items = {name: ocp.args.StandardRestore(tree) for name, tree in targets.items()}
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:  # Orbax raises plain exceptions too
            if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
                raise
            why = f"({reason(error)}); it is damaged or has another model"
            raise DamagedError(f"{where} can't be restored {why}") from error
        trees = {name: restored[name] for name in targets}
        if (written := about.get("digests")) is not None:  # None: by an earlier version
            found = examine(trees)[1]
            if differing := [name for name, digest in found.items() if digest != written.get(name)]:
                raise DamagedError(f"{where} is damaged: {', '.join(differing)} changed after it was written")
        return trees, about

    def restore_model(self, step: int, params: Any, batch_stats: Any) -> tuple[Any, Any]:
        """Returns parameters and statistics of a checkpoint; the arguments give structure, shapes and dtypes.

        Raises:
          DamagedError: as `restore`.
        """
        trees, _ = self.restore(step, {"model": {"params": params, "batch_stats": batch_stats}})
        return trees["model"]["params"], trees["model"]["batch_stats"]

    def wait(self) -> None:
        """Waits until what is being written is on disk.

        Raises:
          UserError: it can't be written.
        """
        with writing(self.folder):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for writing and releases the folder. Errors of writing are raised by `wait`, not here."""
        with contextlib.suppress(UserError), writing(self.folder):
            self._manager.close()


def best_step(history: Iterable[Mapping[str, Any]], num_tasks: int) -> int | None:
    """Returns the last step of the epoch with the best validation, None before the first epoch is complete.

    The best has the highest accuracy, averaged over the heads; among equals, the lowest loss; then the earliest.

    Args:
      history: entries with `step`, `epoch`, `task`, `accuracy` and `loss` (as text where it is not finite).
      num_tasks: how many entries an epoch has.
    """
    epochs: dict[int, list[Mapping[str, Any]]] = {}
    for entry in history:
        epochs.setdefault(entry["epoch"], []).append(entry)
    complete = [entries for entries in epochs.values() if len(entries) == num_tasks]
    if not complete:
        return None

    def rank(entries: list[Mapping[str, Any]]) -> tuple[float, float]:
        loss = sum(float(entry["loss"]) for entry in entries)
        return sum(entry["accuracy"] for entry in entries), -math.inf if math.isnan(loss) else -loss

    return max(entry["step"] for entry in max(complete, key=rank))


def save_model(run: Path, spec: ModelSpec, params: Any, batch_stats: Any) -> None:
    """Writes a checkpoint of a model that was not trained here, at step 0 and without an optimizer.

    Raises:
      UserError: it can't be written.
    """
    folder = run.resolve() / FOLDER
    model = {"params": params, "batch_stats": batch_stats}
    _, digests = examine({"model": model})
    with writing(folder), ocp.CheckpointManager(folder) as manager:
        manager.save(
            0, args=_to_save({"model": model}, about_item.sealed({"spec": spec.to_json(), "history": []}, digests))
        )


def _to_save(trees: Trees, about: Mapping[str, Any]) -> ocp.args.Composite:
    items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
    return ocp.args.Composite(**items, about=ocp.args.JsonSave(about))
