"""Checkpoints of a run, by Orbax.

Each holds two arrays' trees (`model`: parameters and statistics as they are evaluated; `optimizer`: Adam's states, the
step and, where `model` is an average, the weights that are trained) and one JSON item (`about`: the model's description
with its class names, and the validation results so far). The position in the index stream is the step number
(`data.index_stream`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from facefeat_jax.errors import UserError
from facefeat_jax.spec import ModelSpec
from facefeat_jax.training.steps import TrainState, final_weights

FOLDER = "checkpoints"


class Checkpoints:
    """The checkpoints of one run folder.

    Args:
      run: the run folder; `checkpoints/` inside it is made when the first one is saved.
      keep: how many of the newest to keep.
      read_only: leave everything as it is, also what another process is writing.
    """

    def __init__(self, run: Path, *, keep: int = 2, read_only: bool = False):
        self.folder = run.resolve() / FOLDER
        if read_only:
            options = ocp.CheckpointManagerOptions(read_only=True, save_interval_steps=0, create=False)
        else:
            options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        logger = logging.getLogger("absl")
        level = logger.level
        try:
            # Orbax warns that a manager opened read-only is read-only.
            logger.setLevel(logging.ERROR if read_only else level)
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        except OSError as error:
            raise UserError(f"{self.folder} can't be used ({error.strerror or error}); give another folder") from error
        finally:
            logger.setLevel(level)

    def latest_step(self) -> int | None:
        """Returns the step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, about: dict[str, Any]) -> None:
        """Starts writing a checkpoint under the state's step; the arrays may be donated as soon as this returns."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        with _written(self.folder):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    model=ocp.args.StandardSave(_model(state)),
                    optimizer=ocp.args.StandardSave(_rest(state)),
                    about=ocp.args.JsonSave(about),
                ),
            )

    def about(self, step: int) -> dict[str, Any]:
        """Returns the JSON item of a checkpoint.

        Raises:
          UserError: it can't be read.
        """
        return self._restore(step, about=ocp.args.JsonRestore())["about"]

    def restore(self, step: int, like: TrainState) -> TrainState:
        """Returns the state of a checkpoint.

        Args:
          step: which checkpoint.
          like: a state of the same structure, shapes and dtypes.

        Raises:
          UserError: the checkpoint is of another structure.
        """
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        restored = self._restore(
            step,
            model=ocp.args.StandardRestore({"params": target.params, "batch_stats": target.batch_stats}),
            optimizer=ocp.args.StandardRestore(_rest(target)),
        )
        rest = restored["optimizer"]
        weights = rest["trained"] if "trained" in rest else restored["model"]
        return TrainState(
            weights["params"], weights["batch_stats"], rest["optimizer"], rest["step"], rest.get("average")
        )

    def restore_model(self, step: int, params: Any, batch_stats: Any) -> tuple[Any, Any]:
        """Returns parameters and statistics of a checkpoint; the arguments give structure, shapes and dtypes."""
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, {"params": params, "batch_stats": batch_stats})
        restored = self._restore(step, model=ocp.args.StandardRestore(target))["model"]
        return restored["params"], restored["batch_stats"]

    def _restore(self, step: int, **items: Any) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"checkpoint {self.folder / str(step)} can't be restored ({reason}); it is damaged or of another "
                "model. Delete it to use the one before"
            ) from error

    def wait(self) -> None:
        """Waits until what is being written is on disk."""
        with _written(self.folder):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for writing and releases the folder."""
        self._manager.close()


def _model(state: TrainState) -> dict[str, Any]:
    params, batch_stats = final_weights(state)
    return {"params": params, "batch_stats": batch_stats}


def _rest(state: TrainState) -> dict[str, Any]:
    rest = {"optimizer": state.optimizer, "step": state.step}
    if state.average is None:
        return rest
    # `model` holds the average then, since that is what a run is evaluated with; training goes on from its own weights.
    trained = {"params": state.params, "batch_stats": state.batch_stats}
    return {**rest, "trained": trained, "average": state.average}


def save_model(run: Path, spec: ModelSpec, params: Any, batch_stats: Any) -> None:
    """Writes a checkpoint of a model that was not trained here, at step 0 and without an optimizer.

    Raises:
      UserError: it can't be written.
    """
    folder = run.resolve() / FOLDER
    with _written(folder), ocp.CheckpointManager(folder) as manager:
        manager.save(
            0,
            args=ocp.args.Composite(
                model=ocp.args.StandardSave({"params": params, "batch_stats": batch_stats}),
                about=ocp.args.JsonSave({"spec": spec.to_json(), "history": []}),
            ),
        )


@contextlib.contextmanager
def _written(folder: Path) -> Iterator[None]:
    """Says in one line what keeps a checkpoint from being written; Orbax leaves no half one behind."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"a checkpoint can't be written to {folder} ({reason}); make room, then go on with --resume"
        ) from error
