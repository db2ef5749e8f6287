"""Classifies pictures by their nearest neighbours among the features of a pretrained trunk; nothing is trained.

    python examples/features_knn.py FOLDER --weights imagenet

FOLDER holds a folder of pictures for each class. A quarter of them is kept back to measure the accuracy on.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from facefeat_jax import create_model
from facefeat_jax.data.images import decode_resized
from facefeat_jax.models import normalize


def read_folder(folder: Path, size: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Returns pictures `[n, size, size, 3]` (uint8), labels `[n]` and the names of the classes, which are folders."""
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    files = [(file, number) for number, name in enumerate(classes) for file in sorted((folder / name).iterdir())]
    pictures = [decode_resized(file.read_bytes(), size, "upright") for file, _ in files]
    return np.stack(pictures), np.array([number for _, number in files]), classes


def make_features(trunk: nnx.Module, batch_size: int = 64):
    """Returns a function from pictures `[n, size, size, 3]` (uint8) to features `[n, width]`."""
    trunk.eval()
    graphdef, state = nnx.split(trunk)

    @jax.jit
    def batch_features(state, batch):
        return nnx.merge(graphdef, state)(normalize(batch))

    def features(pictures: np.ndarray) -> np.ndarray:
        found = []
        for start in range(0, len(pictures), batch_size):
            batch = pictures[start : start + batch_size]
            # All batches have one shape, so that one program is compiled; the last one's padding is cut off again.
            padded = np.pad(batch, [(0, batch_size - len(batch))] + [(0, 0)] * 3)
            found.append(np.asarray(batch_features(state, padded))[: len(batch)])
        return np.concatenate(found)

    return features


def main(argv: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trunk", default="resnet18")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--neighbours", type=int, default=5)
    options = parser.parse_args(argv)

    pictures, labels, classes = read_folder(options.folder, options.image_size)
    model = create_model(options.trunk, tasks=[], weights=options.weights)
    features = make_features(model.trunk)(pictures)
    features /= np.linalg.norm(features, axis=1, keepdims=True)  # neighbours by angle, not by length

    known, kept_back, known_labels, true_labels = train_test_split(features, labels, stratify=labels, random_state=0)
    neighbours = KNeighborsClassifier(options.neighbours).fit(known, known_labels)
    accuracy = neighbours.score(kept_back, true_labels)
    print(f"{', '.join(classes)}: accuracy {accuracy:.3f} on {len(kept_back)} pictures")
    return accuracy


if __name__ == "__main__":
    main()
