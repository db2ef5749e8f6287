"""What ends a command before it is done: bad input, a signal, an extra that is not installed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# What a plain installation leaves out: models and their weights need none of it.
PREDICT = ("PIL",)
FACES = ("cv2",)
ONNX = ("onnx", "onnxruntime")
STABLEHLO = ("flatbuffers",)
SERVE = ("fastapi", "prometheus_client", "pydantic", "python_multipart", "starlette", "uvicorn")
VIDEO = ("av",)
SHARDS = ("fsspec", "pyarrow")
RAY = ("ray", "pandas")
HUB = ("huggingface_hub",)
FORMATS = ("pillow_heif", "pillow_jxl")
TRAIN = (
    "array_record",
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


# What other programs call it, by our name; of several of ours, the first that there is where the word was given counts.
_SAID = {
    "evaluate": "test val valid validate validation eval score measure metrics",
    "predict": "infer inference detect classify label",
    "train": "fit finetune learn",
    "prepare": "download fetch data dataset preprocess",
    "convert": "import load",
    "push": "upload publish hub",
    "export": "save onnx torch pytorch",
    "serve": "server http api deploy rest",
    "models": "list zoo backbones trunks",
    "launch": "distributed torchrun ddp multi",
    "benchmark": "speed time profile",
    "doctor": "info env environment check debug",
    "audit": "inspect clean duplicates",
    "learning-rate": "lr learningrate rate",
    "batch-size": "bs batch batchsize train-batch-size",
    "weight-decay": "wd decay",
    "epochs": "epoch num-epochs n-epochs max-epochs iterations",
    "trunk": "model arch architecture backbone network net",
    "weights": "pretrained init",
    "weights-key": "state-dict",
    "trainable": "freeze frozen unfreeze",
    "feed-threads": "workers num-workers threads",
    "image-size": "imgsz img-size size resolution input-size",
    "sources": "data dataset datasets train-data",
    "data-dir": "data-root data-path root datadir",
    "out-folder": "output-folder out-dir shards",
    "worker-index": "shard-index rank worker worker-id node-rank",
    "num-workers": "num-shards world-size nodes",
    "image-column": "column",
    "out": "output output-dir outdir save-dir o",
    "run": "output output-dir out outdir save-dir logdir name project",
    "to": "output out run format",
    "checkpoint": "ckpt epoch",
    "overwrite": "force exist-ok replace",
    "resume": "continue restart",
    "learning-rate-schedule": "scheduler lr-schedule lr-scheduler",
    "warmup-steps": "warmup warm-up",
    "dtype": "amp fp16 half bf16 precision mixed-precision",
    "label-smoothing": "smoothing",
    "error-rate": "conf confidence threshold thres",
    "device": "gpu gpus cuda cpu accelerator platform devices",
    "flip": "augment hflip horizontal-flip mirror",
    "colour-jitter": "color-jitter jitter",
    "erase": "random-erasing erasing cutout",
    "checkpoint-every": "save-every save-freq",
    "log-every": "print-freq log-interval log-freq",
    "draw": "visualize visualise plot annotate save-images",
    "explain": "gradcam grad-cam cam saliency",
    "faces": "face detect-faces face-detection",
    "face-model": "detector face-detector",
    "boxes": "bbox bboxes",
    "smoke": "quick dry-run fast-dev-run",
    "limit": "subset max-samples num-samples",
    "from": "source input src path downloads",
}


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Returns which of the known names may be meant: by what it is called elsewhere, else by its spelling."""
    names = list(known)
    plain = name.lstrip("-").replace("_", "-").lower()
    by_meaning = [ours for ours, said in _SAID.items() if plain in said.split()]
    for ours in by_meaning:
        if found := next((one for one in names if one.lstrip("-") == ours), None):
            return found
    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=0.5)), None)


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Returns the error for a name that is not among the known ones; it suggests the nearest."""
    names = list(known)
    match = nearest(name, names)
    suggestion = f" Did you mean {match!r}?" if match else ""
    return UserError(f"unknown {kind} {name!r}.{suggestion} Known: {', '.join(names)}")


def install(extras: str) -> str:
    """Returns the advice to install extras. There is no release on the package index yet that could be named."""
    return f"run in the checkout: pip install '.[{extras}]'"


def what_to_install(error: ImportError) -> str | None:
    """Returns one line for a module that is missing because its extra is not installed; None for any other."""
    module = (error.name or "").partition(".")[0]
    if module in FACES:
        return f"finding faces needs {module}, which is not installed; {install('predict,faces')}"
    for extra, modules in (
        ("onnx", ONNX),
        ("stablehlo", STABLEHLO),
        ("serve", SERVE),
        ("predict,video", VIDEO),
        ("shards", SHARDS),
        ("ray", RAY),
        ("hub", HUB),
    ):
        if module in modules:
            return f"this needs {module}, which is not installed; {install(extra)}"
    if module not in PREDICT + TRAIN:
        return None
    less = " (to predict alone, '.[predict]' is enough)" if module in PREDICT else ""
    return f"this needs {module}, which is not installed; {install('train')}{less}"
