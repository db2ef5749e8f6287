"""Batch normalisation with torch's rule for the running variance."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from flax.errors import TraceContextError
from jax.typing import DTypeLike

from facefeat_jax.models._promotion import of_rank, widest
from facefeat_jax.models.arrays import Mask, Stage


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last, as `torch.nn.BatchNorm2d` does it.

    `nnx.BatchNorm` is different in two ways that matter here: it stores the biased variance where torch stores the
    unbiased (while both normalise with the biased), and it keeps float32 statistics whatever `param_dtype`
    says. Training also counts the batches seen, as torch's `num_batches_tracked` does.

    Attributes:
      scale, bias: `nnx.Param`, `[num_features]`, `param_dtype`.
      mean, var: `nnx.BatchStat`, `[num_features]`, `param_dtype`: the running statistics.
      num_batches_tracked: `nnx.BatchStat`, `[]`, int32.
      use_running_average: normalise with the running statistics instead of the batch's, and leave them as they are.
        `model.train()` and `model.eval()` set it.

    Args:
      num_features: size of the last axis.
      momentum: share of the old running statistics that is kept (Flax's meaning; torch's momentum is 1 minus it).
      epsilon: added to the variance.
      dtype: dtype of the output; the default is the dtype of inputs and parameters together. The statistics of a
        batch are computed in float32 if the inputs are narrower.
      param_dtype: dtype of parameters and running statistics.
      use_running_average: see above.
      rngs: taken for symmetry with other modules; nothing here is random.
    """

    def __init__(
        self,
        num_features: int,
        *,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        use_running_average: bool = False,
        rngs: nnx.Rngs | None = None,
    ):
        del rngs
        self.scale = nnx.Param(jnp.ones((num_features,), param_dtype))
        self.bias = nnx.Param(jnp.zeros((num_features,), param_dtype))
        self.mean = nnx.BatchStat(jnp.zeros((num_features,), param_dtype))
        self.var = nnx.BatchStat(jnp.ones((num_features,), param_dtype))
        self.num_batches_tracked = nnx.BatchStat(jnp.zeros((), jnp.int32))
        self.num_features = num_features
        self.momentum = momentum
        self.epsilon = epsilon
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.use_running_average = use_running_average

    def __call__(self, inputs: Stage, *, mask: Mask | None = None) -> Stage:
        """Normalises; in training mode also moves the running statistics.

        Args:
          inputs: `[batch, ..., num_features]`.
          mask: `[batch]`, true for real rows. Rows that only pad the batch are normalised with the others but count
            for nothing in the statistics, which makes a padded batch equal to the same batch cut short.

        Returns:
          As `inputs`, in `dtype`.

        Raises:
          ValueError: in training mode with one value per channel, which has no unbiased variance.
        """
        stats_dtype = widest(inputs.dtype, self.param_dtype, jnp.float32)
        x = inputs.astype(stats_dtype)
        if self.use_running_average:
            mean, var = self.mean[...].astype(stats_dtype), self.var[...].astype(stats_dtype)
        else:
            mean, var, count = _batch_statistics(x, mask)
            unbiased = var * (count / jnp.maximum(count - 1, 1))
            self._move(self.mean, mean)
            self._move(self.var, unbiased)
            self.num_batches_tracked[...] += 1
        multiplier = jax.lax.rsqrt(var + self.epsilon) * self.scale[...].astype(stats_dtype)
        # The mean, in two parts: as a constant, and its difference from that (0, with the mean's derivatives). This way
        # the gradient needs two sums over the inputs, of d and of d * (x - mean), where the plain form needs four.
        constant = jax.lax.stop_gradient(mean)
        scaled = (x - of_rank(constant, x)) * of_rank(multiplier, x)
        moved = (mean - constant) * multiplier
        outputs = scaled + of_rank(self.bias[...].astype(stats_dtype) - moved, x)
        return outputs.astype(self.dtype or widest(inputs.dtype, self.param_dtype))

    def _move(self, running: nnx.BatchStat, observed: jax.Array) -> None:
        kept = self.momentum * running[...]
        added = (1 - self.momentum) * observed
        moved = jax.lax.stop_gradient(kept.astype(added.dtype) + added).astype(self.param_dtype)
        try:
            running[...] = moved
        except TraceContextError as error:
            raise TraceContextError(
                f"{error}: in training mode a call moves the running statistics, so give the model to the jitted "
                "function as an argument (flax.nnx.jit), merge it inside (flax.nnx.merge), or call model.eval()"
            ) from None

    def set_view(self, use_running_average: bool | None = None) -> None:
        """Sets the mode; called by `nnx.view`."""
        if use_running_average is not None:
            self.use_running_average = use_running_average


def _batch_statistics(x: Stage, mask: Mask | None) -> tuple[jax.Array, jax.Array, jax.Array | float]:
    """Returns mean and biased variance over all axes but the last, and how many values each is taken over.

    In two passes: the one-pass form E[x^2] - E[x]^2 loses digits where the mean is large against the deviation. The
    variance is taken about the mean as a constant and corrected by the square of their difference: 0, but for second
    derivatives. So the gradient has no third pass for the sum of x - mean, which is 0. A row's mask weighs the row's
    sums, not its values, whose product would be one more array as large as the inputs.
    """
    if mask is None and x.size < 2 * x.shape[-1]:
        raise ValueError(
            f"batch statistics need two values per channel or more, got inputs of shape {x.shape}: give more or larger "
            "pictures, or normalise with the running statistics (model.eval())"
        )
    positions = x.size // (x.shape[0] * x.shape[-1])
    weights = jnp.ones(x.shape[0], x.dtype) if mask is None else mask.astype(x.dtype)
    count = x.shape[0] * positions if mask is None else jnp.sum(weights) * positions

    def average(values: jax.Array) -> jax.Array:
        row_sums = jnp.sum(values, axis=tuple(range(1, values.ndim - 1)))
        return jnp.sum(row_sums * weights[:, None], axis=0) / count

    mean = average(x)
    constant = jax.lax.stop_gradient(mean)
    return mean, average(jnp.square(x - of_rank(constant, x))) - jnp.square(mean - constant), count
