"""`python -m weights_conversion verify NAME [WEIGHTS]`: compares a trunk with torchvision's."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from facefeat_jax.system.main import run_main


@dataclass(frozen=True)
class Verify:
    """Compares a trunk with torchvision's model of that name on made-up pictures, and prints how far they are apart.

    Every stage, features and logits in evaluation and in training mode (without dropout and stochastic depth, or with
    torch's masks), gradients, and weights and statistics after three steps of Adam: the largest difference from torch
    in float64, relative to the largest number. Exits with 1 if JAX's float64 differs by more than 1e-9 anywhere.
    """

    name: tyro.conf.Positional[str]
    """The trunk (`facefeat models` lists them)."""
    weights: tyro.conf.Positional[str | None] = None
    """A torchvision file (.pth or .safetensors), or the name of published weights; the default is a random start."""
    image_size: int | None = None
    """Side of the pictures in pixels; the default is 128, or what the positions of a Vision Transformer are for."""
    batch_size: int = 8
    """Pictures at a time."""
    training: bool = True
    """Whether gradients and training steps are compared too; for large models they take a lot of memory."""
    seed: int = 0
    """Of weights, pictures and masks."""
    dropping: bool = False
    """Whether dropout and stochastic depth are on, with the masks that torch draws; in float64 alone."""

    def run(self) -> int:
        """Prints the table; returns the exit code."""
        from weights_conversion.verify import TOLERANCE, largest, table, verify

        rows = verify(
            self.name,
            self.weights,
            image_size=self.image_size,
            batch_size=self.batch_size,
            training=self.training,
            seed=self.seed,
            dropping=self.dropping,
        )
        print(f"{self.name}, {self.weights or f'random weights of seed {self.seed}'}: difference from torch in float64")
        print(table(rows))
        worst = largest(rows, "JAX float64")
        equal = worst <= TOLERANCE
        print(f"float64: {'equal' if equal else 'NOT equal'} (largest {worst:.1e}, tolerance {TOLERANCE:.0e})")
        return 0 if equal else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] != ["verify"]:
        print("usage: python -m weights_conversion verify NAME [WEIGHTS] [--option value ...]", file=sys.stderr)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    parsed = tyro.cli(Verify, prog="python -m weights_conversion verify", args=arguments[1:])
    return run_main(parsed.run)


if __name__ == "__main__":
    sys.exit(main())
