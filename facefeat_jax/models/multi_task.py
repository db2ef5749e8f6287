"""The model: one trunk and a head for each task."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Float

from facefeat_jax.models._checks import WrongCallError, check_ready, no_such
from facefeat_jax.models.arrays import Mask, Stage
from facefeat_jax.models.head import Head
from facefeat_jax.models.trunk import POOLED, Trunk
from facefeat_jax.tasks import Task


class MultiTaskModel(nnx.Module):
    """A trunk whose pooled features feed one `Head` per task.

    Args:
      trunk: maps images to features `[batch, trunk.num_features]`.
      tasks: what the heads predict; each head takes its task's name.
      dtype: dtype of the heads' computation; the default is that of inputs and parameters together.
      param_dtype: dtype of the heads' parameters.
      rngs: source of the heads' initial weights.

    Attributes:
      trunk: the trunk; call it alone for pooled features, or `trunk.stages` for its named maps.
      heads: `nnx.Dict` of the heads by task name.
    """

    def __init__(
        self,
        trunk: Trunk,
        tasks: Iterable[Task],
        *,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.trunk = trunk
        self.heads = self.make_heads(trunk.num_features, tasks, dtype=dtype, param_dtype=param_dtype, rngs=rngs)

    @classmethod  # not static: `nnx.tabulate` would take it for a method of an instance, and leave it so
    def make_heads(
        cls,
        num_features: int,
        tasks: Iterable[Task],
        *,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> nnx.Dict[Head]:
        """Returns a new head for each task, by name; arguments as above, `num_features` is the trunk's."""
        return nnx.Dict(
            {
                task.name: Head(num_features, task.num_outputs, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
                for task in tasks
            }
        )

    def __call__(
        self,
        images: Stage,
        *,
        tasks: str | Iterable[str] | None = None,
        mask: Mask | None = None,
        after: str | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> dict[str, Float[jax.Array, "batch _"]]:
        """Returns the logits of each task.

        Args:
          images: `[batch, height, width, channels]`, floating point, normalised (`models.preprocessing`); with
            `after`, the output of that stage of the trunk, or pooled features.
          tasks: the head or heads to run; the default is all of them.
          mask: `[batch]`, true for real rows; in training mode batch statistics are taken over these alone.
          after: the stage of the trunk that `images` come from; those up to it are left out. `POOLED`: all are.
          rngs: source of what is random in training mode; trunks without stochastic depth and dropout need none.

        Returns:
          `{task: [batch, num_outputs]}`; a binary task has one output.

        Raises:
          ValueError: there is no head to run, or not the one that is asked for; the model is abstract.
        """
        check_ready(self)
        # A dict of Flax's has its attributes for items: `nnx.tabulate` leaves a number there.
        heads = [name for name in self.heads if callable(self.heads[name])]
        names = [tasks] if isinstance(tasks, str) else list(heads if tasks is None else tasks)
        if not names:
            raise ValueError("there is no head to run: for features, call model.trunk(images)")
        for name in names:
            if name not in heads:
                raise WrongCallError(f"the model has {no_such('head', name, heads)} Heads: {', '.join(heads)}")
        features = images if after == POOLED else self.trunk(images, mask=mask, after=after, rngs=rngs)
        return {name: self.heads[name](features) for name in names}
