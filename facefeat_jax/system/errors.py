"""What ends a command before it is done: bad input, a signal, an extra that is not installed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# What a plain installation leaves out: models and their weights need none of it.
PREDICT = ("PIL",)
FACES = ("cv2",)
ONNX = ("onnx", "onnxruntime")
STABLEHLO = ("flatbuffers",)
TRAIN = (
    "absl",
    "grain",
    "imagehash",
    "importlib_resources",
    "jinja2",
    "markupsafe",
    "matplotlib",
    "optax",
    "orbax",
    "sklearn",
    "tensorboardX",
    "tensorflow_datasets",
)
"""The modules of each extra, beside those of `predict`, which all but `faces` bring; packages: see pyproject.toml."""


class UserError(Exception):
    """Bad input or a wrong call: the message is one line that says what is wrong, where, and what to do.

    A command prints it without a traceback and exits with 2.
    """


class Interrupted(Exception):
    """A signal stopped the work. It can be resumed.

    Attributes:
      exit_code: 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, signal_number: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + signal_number


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Returns the error for a name that is not among the known ones; it suggests the nearest."""
    names = list(known)
    match = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    suggestion = f" Did you mean {match[0]!r}?" if match else ""
    return UserError(f"unknown {kind} {name!r}.{suggestion} Known: {', '.join(names)}")


def what_to_install(error: ImportError) -> str | None:
    """Returns one line for a module that is missing because its extra is not installed; None for any other."""
    module = (error.name or "").partition(".")[0]
    if module in FACES:
        return f"finding faces needs {module}, which is not installed; run: pip install 'facefeat-jax[predict,faces]'"
    for extra, modules in (("onnx", ONNX), ("stablehlo", STABLEHLO)):
        if module in modules:
            return f"this needs {module}, which is not installed; run: pip install 'facefeat-jax[{extra}]'"
    if module not in PREDICT + TRAIN:
        return None
    less = " (to predict alone, 'facefeat-jax[predict]' is enough)" if module in PREDICT else ""
    return f"this needs {module}, which is not installed; run: pip install 'facefeat-jax[train]'{less}"
