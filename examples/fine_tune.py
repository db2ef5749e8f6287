"""Fine-tunes the last block of a pretrained trunk, with a new head, on a folder of pictures for each class.

    python examples/fine_tune.py FOLDER --weights imagenet --out model.safetensors

A plain loop with optax and Flax NNX, to be changed at will; `facefeat train` is the careful one.
"""

import argparse
from pathlib import Path

import numpy as np
import optax
from flax import nnx

import weights_conversion
from facefeat_jax import Task, create_model
from facefeat_jax.data.images import decode_resized
from facefeat_jax.models import normalize, trained_parameters


def read_folder(folder: Path, size: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Returns pictures `[n, size, size, 3]` (uint8), labels `[n]` and the names of the classes, which are folders."""
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    files = [(file, number) for number, name in enumerate(classes) for file in sorted((folder / name).iterdir())]
    pictures = [decode_resized(file.read_bytes(), size, "upright") for file, _ in files]
    return np.stack(pictures), np.array([number for _, number in files]), classes


def main(argv: list[str] | None = None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("model.safetensors"))
    options = parser.parse_args(argv)

    pictures, labels, classes = read_folder(options.folder, options.image_size)
    task = Task("mine", tuple(classes))
    model = create_model("resnet18", tasks=[task], weights=options.weights, rngs=nnx.Rngs(0))
    trained = trained_parameters(model, "layer4")  # and the head
    optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=trained)
    # BatchNorms of the frozen stages keep the statistics they came with; those of layer4 move.
    model.train()
    for name in ("bn1", "layer1", "layer2", "layer3"):
        getattr(model.trunk, name).eval()

    @nnx.jit
    def step(model, optimizer, batch, labels):
        def loss_of(model):
            logits = model(normalize(batch))[task.name]
            if task.is_binary:  # one logit
                return optax.sigmoid_binary_cross_entropy(logits[:, 0], labels).mean()
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        loss, gradients = nnx.value_and_grad(loss_of, argnums=nnx.DiffState(0, trained))(model)
        optimizer.update(model, gradients)
        return loss

    stream, losses = np.random.default_rng(0), []
    for epoch in range(options.epochs):
        order = stream.permutation(len(labels))
        batches = [order[i : i + options.batch_size] for i in range(0, len(order), options.batch_size)]
        losses.append(
            np.mean([step(model, optimizer, pictures[rows], labels[rows]) for rows in batches if len(rows) > 1])
        )
        print(f"epoch {epoch + 1}: loss {losses[-1]:.4f}")

    weights_conversion.write(options.out, weights_conversion.to_torch(model))
    print(f"{options.out}: convert it with facefeat convert --classes mine={','.join(classes)}")
    return losses


if __name__ == "__main__":
    main()
