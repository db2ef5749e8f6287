"""The ResNet under a feature pyramid, as detectors use it: one head reads maps of several scales.

    python examples/multi_scale_head.py --weights imagenet

Prints the shapes, and takes training steps on made-up targets. (Lin et al. 2017, https://arxiv.org/abs/1612.03144)
"""

import argparse

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from facefeat_jax import create_model
from facefeat_jax.models.trunk import Trunk


class PyramidDetector(nnx.Module):
    """A ResNet, a feature pyramid over three of its stages, and a head that all levels share."""

    LEVELS = ("layer2", "layer3", "layer4")  # they divide the image by 8, 16 and 32

    def __init__(self, trunk: Trunk, num_classes: int, *, width: int = 64, rngs: nnx.Rngs):
        self.trunk = trunk
        shapes = nnx.eval_shape(lambda trunk, images: trunk.stages(images), trunk, jnp.zeros((1, 64, 64, 3)))
        channels = {name: shapes[name].shape[-1] for name in self.LEVELS}
        self.lateral = nnx.Dict({n: nnx.Conv(channels[n], width, (1, 1), rngs=rngs) for n in self.LEVELS})
        self.smooth = nnx.Dict({n: nnx.Conv(width, width, (3, 3), rngs=rngs) for n in self.LEVELS})
        self.tower = nnx.Conv(width, width, (3, 3), rngs=rngs)
        self.classes = nnx.Conv(width, num_classes, (1, 1), rngs=rngs)
        self.boxes = nnx.Conv(width, 4, (1, 1), rngs=rngs)

    def __call__(self, images: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
        """Maps `[batch, h, w, 3]` to class logits `[batch, h/s, w/s, num_classes]` and boxes `[..., 4]` by level."""
        maps, outputs, above = self.trunk.stages(images), {}, None
        for name in reversed(self.LEVELS):
            level = self.lateral[name](maps[name])
            if above is not None:  # the coarser level, enlarged to this one's size
                level += jax.image.resize(above, level.shape, "nearest")
            features = nnx.relu(self.tower(nnx.relu(self.smooth[name](level))))
            above, outputs[name] = level, (self.classes(features), self.boxes(features))
        return outputs


def main(argv: list[str] | None = None) -> dict[str, tuple[int, ...]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--image-size", type=int, default=256)
    options = parser.parse_args(argv)

    detector = PyramidDetector(create_model("resnet18", tasks=[], weights=options.weights).trunk, 3, rngs=nnx.Rngs(0))
    detector.trunk.eval()  # detectors keep the trunk's BatchNorm statistics: their batches are small
    optimizer = nnx.Optimizer(detector, optax.sgd(1e-2, momentum=0.9), wrt=nnx.Param)
    images = jax.random.normal(jax.random.key(0), (2, options.image_size, options.image_size, 3))

    @nnx.jit
    def step(detector, optimizer):
        def loss_of(detector):
            outputs = detector(images)
            wrong = sum(optax.sigmoid_binary_cross_entropy(c, jnp.zeros_like(c)).mean() for c, _ in outputs.values())
            return wrong + sum(jnp.abs(boxes).mean() for _, boxes in outputs.values()), outputs

        (loss, outputs), gradients = nnx.value_and_grad(loss_of, has_aux=True)(detector)
        optimizer.update(detector, gradients)
        return loss, outputs

    losses = [step(detector, optimizer)[0] for _ in range(2)]
    shapes = {name: classes.shape for name, (classes, _) in step(detector, optimizer)[1].items()}
    print(f"{shapes}\nloss {losses[0]:.4f}, after one step {losses[1]:.4f}")
    return shapes


if __name__ == "__main__":
    main()
