"""Checkpoints of a run, by Orbax.

Each holds two arrays' trees (`model`: parameters and statistics as they are evaluated; `optimizer`: what else the
training continues from) and one JSON item (`runs.about`: the model's description with its class names, the validation
results so far, and digests of both trees). The position in the index stream is the step number (`data.index_stream`),
and so is all that is drawn at random.

Orbax writes beside the final name, in the background, and renames: what has the name is complete, and the one before
is deleted only then. What a disk spoils afterwards is found by the digests.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import multihost

from facefeat_jax.runs import _about as about_item
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


class _Kept:
    """Which checkpoints stay: the newest, and the best one of a run (a `PreservationPolicy` of Orbax)."""

    def __init__(self, newest: int):
        self.newest = newest
        self.best: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        del context
        newest = {info.step for info in checkpoints[-self.newest :]}
        return [info.step in newest or info.step == self.best for info in checkpoints]


class Checkpoints:
    """The checkpoints of one run folder.

    Args:
      run: the run folder; `checkpoints/` inside it is made when the first one is saved.
      keep: how many of the newest to keep.
      read_only: leave everything as it is, also what another process is writing.

    Attributes:
      folder: where they lie.
      unchecked: the steps of those read so far that an earlier version wrote without a digest of their description.
    """

    def __init__(self, run: Path, *, keep: int = 2, read_only: bool = False):
        self.folder = run.resolve() / FOLDER
        self.unchecked: set[int] = set()
        self._kept, self._read_only = _Kept(keep), read_only
        if read_only:
            options = ocp.CheckpointManagerOptions(read_only=True, save_interval_steps=0, create=False)
        else:
            # What an interrupted run has half written is deleted: it takes up room that the next one needs.
            options = ocp.CheckpointManagerOptions(
                preservation_policy=self._kept, create=True, cleanup_tmp_directories=True
            )
        logging.getLogger("absl").addFilter(_is_not_orbax)
        _leave_out_leftovers()
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

        One that is damaged is passed over, with a message. It is put aside, as `STEP.damaged`, unless `read_only`.

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
            with _written(self.folder):
                shutil.rmtree(aside, ignore_errors=True)
                place.rename(aside)
        multihost.sync_global_processes("facefeat: a damaged checkpoint is put aside")
        self._manager.reload()

    def save(self, step: int, trees: Trees, about: dict[str, Any], *, best: int | None = None) -> None:
        """Starts writing a checkpoint; the arrays may be donated as soon as this returns.

        Where there is one of that step, written before its validation was complete, its history is brought up to date.

        Args:
          step: its number.
          trees: what it is to hold: `model` (`params` and `batch_stats`) and `optimizer`, trees of arrays.
          about: the JSON item, but for the digests.
          best: the step of the best checkpoint so far, which is kept whatever comes after.

        Raises:
          UserError: it can't be written, or the one before could not; or they are not finite, and would be no
            place to go on from.
        """
        self._kept.best = best
        if step in self._manager.all_steps():
            self._complete(step, about)
            return
        if jax.device_count() > 1:
            # Orbax would take a part of each array from every device. Copies that ought to be the same may differ in
            # their last bits, where devices added up in another order: what is written is what the digests are of.
            trees = jax.tree.map(np.array, dict(trees))
        finite, digests = _examined(trees)
        if not finite:
            raise UserError(
                f"the weights are not finite after step {step}, though the losses were; the newest checkpoint in "
                f"{self.folder} is the last good one. Try a lower --learning-rate, or continue with --resume and "
                "--on-nonfinite skip"
            )
        item = about_item.sealed(about, digests)
        with _written(self.folder):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    model=ocp.args.StandardSave(trees["model"]),
                    optimizer=ocp.args.StandardSave(trees["optimizer"]),
                    about=ocp.args.JsonSave(item),
                ),
            )

    def _complete(self, step: int, about: Mapping[str, Any]) -> None:
        self.wait()
        written = self.about(step)
        if is_first() and "digests" in written and about.get("history") != written.get("history"):
            with _written(self.folder):
                about_item.replace(self.folder / str(step), about, written["digests"])

    def check(self) -> None:
        """Looks, without waiting, whether what is written in the background came to grief.

        Raises:
          UserError: it did.
        """
        with _written(self.folder):
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
          DamagedError: it can't be read, or is none that a model can have.
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
        about = self.about(step)
        targets = jax.tree.map(ocp.utils.to_shape_dtype_struct, dict(like))
        restored = self._restore(step, **{name: ocp.args.StandardRestore(tree) for name, tree in targets.items()})
        trees = {name: restored[name] for name in targets}
        self._compare(step, trees, about)
        return trees, about

    def restore_model(self, step: int, params: Any, batch_stats: Any) -> tuple[Any, Any]:
        """Returns parameters and statistics of a checkpoint; the arguments give structure, shapes and dtypes.

        Raises:
          DamagedError: as `restore`.
        """
        about = self.about(step)
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, {"params": params, "batch_stats": batch_stats})
        restored = self._restore(step, model=ocp.args.StandardRestore(target))
        self._compare(step, {"model": restored["model"]}, about)
        return restored["model"]["params"], restored["model"]["batch_stats"]

    def _restore(self, step: int, **items: Any) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:  # Orbax raises plain ones too
            if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
                raise
            reason = _reason(error)
            raise DamagedError(
                f"checkpoint {self.folder / str(step)} can't be restored ({reason}); it is damaged or has another model"
            ) from error

    def _compare(self, step: int, parts: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Raises DamagedError where arrays are not those that the JSON item has the digests of."""
        written = about.get("digests")
        if written is None:  # by an earlier version
            return
        _, found = _examined(parts)
        if differing := [name for name, digest in found.items() if digest != written.get(name)]:
            raise DamagedError(
                f"checkpoint {self.folder / str(step)} is damaged: {', '.join(differing)} changed after it was written"
            )

    def wait(self) -> None:
        """Waits until what is being written is on disk.

        Raises:
          UserError: it can't be written.
        """
        with _written(self.folder):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for writing and releases the folder. Whether it succeeded, `wait` says, not this."""
        with contextlib.suppress(UserError), _written(self.folder):
            self._manager.close()


def best_step(history: Iterable[Mapping[str, Any]], num_tasks: int) -> int | None:
    """Returns the last step of the epoch with the best validation, None before the first epoch is complete.

    The best has the highest accuracy, averaged over the heads; of equal ones, the lowest loss; then the earliest.

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
    _, digests = _examined({"model": model})
    with _written(folder), ocp.CheckpointManager(folder) as manager:
        manager.save(
            0,
            args=ocp.args.Composite(
                model=ocp.args.StandardSave(model),
                about=ocp.args.JsonSave(about_item.sealed({"spec": spec.to_json(), "history": []}, digests)),
            ),
        )


def _examined(parts: Mapping[str, Any]) -> tuple[bool, dict[str, str]]:
    """Returns whether all numbers are finite, and a digest of each part that changes with any bit of its arrays.

    On the host, to which the arrays go anyway to be written: one checksum an array, several at a time. A program for
    the device would take longer to compile than many a checkpoint to write.
    """
    with ThreadPoolExecutor(max_workers=8) as pool:
        examined = {name: list(pool.map(_examined_array, jax.tree.leaves(part))) for name, part in parts.items()}
    digests = {}
    for name, arrays in examined.items():
        digests[name] = f"{zlib.crc32(' '.join(checksum for _, checksum in arrays).encode()):08x}"
    return all(finite for arrays in examined.values() for finite, _ in arrays), digests


def _examined_array(array: jax.Array | np.ndarray) -> tuple[bool, str]:
    values = np.ascontiguousarray(array)
    is_float = jnp.issubdtype(values.dtype, jnp.floating)
    checksum = zlib.crc32(values.reshape(-1).view(np.uint8).data)
    return bool(np.isfinite(values).all()) if is_float else True, f"{values.dtype} {values.shape} {checksum:08x}"


def _leave_out_leftovers() -> None:
    """Has Python not print what Orbax leaves under way when a file can't be read or written.

    The first error is raised, and told in a line; the loop that waits for the other files is closed then, and each of
    those that fail too would print a traceback that says so, as would asyncio for those that failed before.
    """
    logging.getLogger("asyncio").addFilter(_is_not_of_orbax)
    if getattr(sys.unraisablehook, "leaves_out_leftovers", False):
        return
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not (isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == "Event loop is closed"):
            before(unraisable)

    hook.leaves_out_leftovers = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    """Leaves out what asyncio logs of tasks of Orbax's that failed beside the one that is told."""
    trace = record.exc_info[2] if record.exc_info else None
    while trace is not None:
        if "orbax" in trace.tb_frame.f_code.co_filename:
            return False
        trace = trace.tb_next
    return True


def _is_not_orbax(record: logging.LogRecord) -> bool:
    """Leaves out what Orbax logs: warnings that a read-only manager is read-only, and tracebacks of what it raises."""
    return "orbax" not in record.pathname


def _reason(error: BaseException) -> str:
    """Returns the first line of what an error says; where it only wraps another, of that one."""
    while error.__cause__ is not None:
        error = error.__cause__
    for code in (errno.ENOSPC, errno.EDQUOT):
        if os.strerror(code) in str(error):
            return os.strerror(code)  # TensorStore says which of hundreds of files, at length
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def _written(folder: Path) -> Iterator[None]:
    """Says in one line what keeps a checkpoint from being written; Orbax leaves no half one behind."""
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"a checkpoint can't be written to {folder} ({_reason(error)}); make room, then continue with --resume"
        ) from error
