"""The PyTorch side: the notebook's program, run on a case."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from parity.cases import TASK_NAMES, Case
from parity.records import Arrays, Record
from pytorch_baseline import model as baseline_model
from pytorch_baseline import pictures, training

_STATISTICS = ("running_mean", "running_var")
_COUNTER = "num_batches_tracked"


def make_model(weights: Mapping[str, np.ndarray], dtype: str) -> baseline_model.MultiTaskNet:
    """Returns the network with the state dict's weights, every name used (`strict=True`), all of it in `dtype`."""
    model = baseline_model.MultiTaskNet()
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()}, strict=True)
    model = model.to(getattr(torch, dtype))
    # Loading into a float32 network rounds; in a wider one the values must go in again.
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()}, strict=True)
    return model


def state_arrays(model: torch.nn.Module) -> Arrays:
    """Returns the network's `state_dict` as arrays."""
    return {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}


def activations(weights: Arrays, images: np.ndarray, *, training: bool, dtype: str = "float64") -> Record:
    """Runs the network forward once, with hooks; arguments and result are those of `jax_side.activations`."""
    model = make_model(weights, dtype)
    model.train(training)
    maps: Arrays = {}

    def hook(name: str, part: torch.nn.Module) -> None:
        part.register_forward_hook(lambda module, inputs, outputs: maps.update({name: outputs.detach().numpy()}))

    hook("stem", model.backbone.maxpool)
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        for number, block in enumerate(getattr(model.backbone, stage)):
            hook(f"{stage}.{number}", block)
    hook("pooled", model.backbone)
    with torch.no_grad():
        features = model.backbone(pictures.tensor_of(images, getattr(torch, dtype)))
        heads = {f"{task} logits": getattr(model, f"{task}_head")(features).numpy() for task in TASK_NAMES}
    after = state_arrays(model)
    return Record(
        {"activations": {**maps, **heads}, "statistics": _ending(after, *_STATISTICS)},
        {"batches tracked": _counters(after)},
    )


def train(case: Case, *, dtype: str = "float64") -> Record:
    """Trains as the notebook does on the case's batches; the result is that of `jax_side.train`."""
    model = make_model(case.weights(), dtype)
    if case.trainable == ("layer4",):
        baseline_model.freeze_early_layers(model)
    elif case.trainable != ("all",):
        raise ValueError(f"the notebook's program trains layer4 or everything, not {case.trainable}")
    optimizer = training.make_optimizer(model)
    model.train()
    losses = {}
    for step, batch in enumerate(case.batches(), start=1):
        images = pictures.tensor_of(batch.images, getattr(torch, dtype))
        loss, _ = training.train_step(model, optimizer, batch.task, images, torch.from_numpy(batch.labels))
        losses[f"step {step:03} {batch.task}"] = np.array(loss)
    tensors = state_arrays(model)
    adam = {name: optimizer.state[value] for name, value in model.named_parameters() if value in optimizer.state}
    return Record(
        {
            "losses": losses,
            "weights": {name: array for name, array in tensors.items() if not name.endswith((*_STATISTICS, _COUNTER))},
            "statistics": _ending(tensors, *_STATISTICS),
            "first moments": {name: moments["exp_avg"].numpy() for name, moments in adam.items()},
            "second moments": {name: moments["exp_avg_sq"].numpy() for name, moments in adam.items()},
        },
        {
            "batches tracked": _counters(tensors),
            "Adam steps": {name: int(moments["step"]) for name, moments in adam.items()},
        },
    )


def _ending(tensors: Arrays, *endings: str) -> Arrays:
    return {name: array for name, array in tensors.items() if name.endswith(endings)}


def _counters(tensors: Arrays) -> dict[str, int]:
    return {name: int(array) for name, array in _ending(tensors, _COUNTER).items()}
