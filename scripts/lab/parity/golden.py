"""Golden files: what PyTorch gave on a few cases, so that the comparison also runs where there is no torch.

Of each tensor a file keeps the sum, the sum of squares and 64 fixed entries; losses and counters are kept whole.
`tests/golden/regenerate.py` writes them.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from parity.cases import Case, made_up_pictures
from weights_conversion._records import Arrays, Record

NUM_ENTRIES = 64

# Small, so that the float64 steps take seconds: what is compared is the arithmetic, not the size.
TRAINING: dict[str, Case] = {
    # The notebook's rule, 48 steps.
    "train_layer4": Case(image_size=32, batch_size=8, steps=8, short=(5, 4, 6), epochs=2, trainable=("layer4",)),
    # Nothing frozen: the gradients of every layer.
    "train_all": Case(image_size=32, batch_size=8, steps=4, short=(5, 4, 6), epochs=1, trainable=("all",), seed=2),
}
# BatchNorm modes of one forward pass at the size that the baseline works at.
FORWARD: dict[str, bool] = {"forward_eval": False, "forward_train": True}
FORWARD_SEED = 1


def forward_pictures() -> np.ndarray:
    """Returns the two pictures `[2, 224, 224, 3]` that the forward passes take."""
    return made_up_pictures(np.random.RandomState(FORWARD_SEED), np.array([0, 1]), 224)


def fingerprint(case: Case) -> int:
    """Returns a checksum of the pictures and labels of a case."""
    checksum = 0
    for batch in case.batches():
        checksum = zlib.crc32(batch.labels.astype("<i8").tobytes(), zlib.crc32(batch.images.tobytes(), checksum))
    return checksum


def names_checksum(shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
    """Returns how many tensors a state dict has, and a checksum of their names and shapes."""
    text = "\n".join(f"{name} {tuple(shape)}" for name, shape in sorted(shapes.items()))
    return [len(shapes), zlib.crc32(text.encode())]


def write(path: Path, record: Record, *, checksum: int = 0) -> None:
    """Writes what is kept of a record."""
    arrays: Arrays = {"checksum": np.array(checksum, np.int64)}
    for kind, values in record.values.items():
        for name, kept in (values if kind == "losses" else summary(values)).items():
            arrays[f"values|{kind}|{name}"] = kept
    for kind, counts in record.counters.items():
        for name, count in counts.items():
            arrays[f"counters|{kind}|{name}"] = np.array(count, np.int64)
    np.savez_compressed(path, **arrays)


def read(path: Path) -> tuple[Record, int]:
    """Returns what a golden file holds, tensors in summary, and the checksum."""
    record = Record()
    with np.load(path) as arrays:
        for key in arrays.files:
            if key == "checksum":
                continue
            what, kind, name = key.split("|")
            if what == "values":
                record.values.setdefault(kind, {})[name] = arrays[key]
            else:
                record.counters.setdefault(kind, {})[name] = int(arrays[key])
        return record, int(arrays["checksum"])


def largest_difference(kind: str, ours: Arrays, golden: Arrays) -> tuple[float, str]:
    """Returns the largest relative difference between whole arrays and what is kept of PyTorch's, and where it is."""
    if odd := sorted(set(ours) ^ set(golden)):
        return float("inf"), f"{odd[0]} is on one side only"
    kept = ours if kind == "losses" else summary(ours)
    gaps = []
    for name, theirs in golden.items():
        if kind == "losses":
            gaps.append((float(abs(kept[name] - theirs) / abs(theirs)), name))
        else:
            gaps.append((summary_difference(kept[name], theirs, ours[name].size), name))
    return max(gaps)


def summary(arrays: Arrays) -> Arrays:
    """Returns `{name: [sum, sum of squares, up to 64 fixed entries]}`: what a golden file keeps of a tensor.

    Which entries is a function of the tensor's name and size.
    """
    return {name: _summarised(name, np.asarray(array, np.float64).ravel()) for name, array in arrays.items()}


def summary_difference(ours: np.ndarray, theirs: np.ndarray, size: int) -> float:
    """Returns how far two summaries of a tensor of that size are apart, relative to what each figure is made of.

    A sum is held against the largest it could be for its sum of squares: terms of both signs may cancel.
    """
    if ours.shape != theirs.shape or not np.isfinite(ours).all():
        return float("inf")
    gaps = np.abs(ours - theirs)
    rms = float(np.sqrt(theirs[1] / size))
    if rms == 0:
        return 0.0 if gaps.max() == 0 else float("inf")
    largest_entry = max(rms, float(np.max(np.abs(theirs[2:]))))
    return max(gaps[0] / (rms * size), gaps[1] / theirs[1], float(np.max(gaps[2:])) / largest_entry)


def _summarised(name: str, flat: np.ndarray) -> np.ndarray:
    chosen = np.random.RandomState(zlib.crc32(name.encode())).permutation(flat.size)[:NUM_ENTRIES]
    return np.concatenate([[flat.sum(), np.square(flat).sum()], flat[np.sort(chosen)]])
