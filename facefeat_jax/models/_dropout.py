"""What is random in training: dropout, and stochastic depth, which is dropout of a whole branch of one picture."""

from __future__ import annotations

from collections.abc import Sequence

from flax import nnx

from facefeat_jax.models.arrays import Stage


class Dropout(nnx.Dropout):
    """Sets values to zero at random in training mode and scales the others up; the key comes with each call.

    `nnx.Dropout` also works with keys of its own, which would be part of the model's state. Here a step that is a
    function of its arguments, and a run that was resumed, draw what they are told to.

    Args:
      rate: the share that is set to zero.
      broadcast_dims: axes along which all values fare alike.
    """

    def __init__(self, rate: float, broadcast_dims: Sequence[int] = ()):
        super().__init__(rate, broadcast_dims=broadcast_dims)

    def __call__(self, inputs: Stage, *, rngs: nnx.Rngs | None = None) -> Stage:  # type: ignore[override]
        """Drops values of `inputs` `[batch, ...]`, each for itself.

        Raises:
          ValueError: `rngs` is missing where something is to be drawn: in training mode, with a rate above 0.
        """
        if rngs is None and self.rate > 0 and not self.deterministic:
            raise ValueError(
                f"{type(self).__name__} with rate {self.rate:.3g} in training mode needs rngs: "
                "call the model with rngs=nnx.Rngs(dropout=key), or put it in evaluation mode with model.eval()"
            )
        return super().__call__(inputs, rngs=rngs)


class StochasticDepth(Dropout):
    """Leaves out the branch of a residual block for some pictures of a batch (https://arxiv.org/abs/1603.09382).

    The others' are scaled up. torchvision calls it mode `row`.

    Args:
      rate: the share of pictures whose branch is left out.
      axes: the axes of the branch after the batch: 3 of maps, 2 of tokens.
    """

    def __init__(self, rate: float, axes: int = 3):
        super().__init__(rate, broadcast_dims=tuple(range(1, 1 + axes)))
