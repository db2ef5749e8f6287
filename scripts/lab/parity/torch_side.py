"""The PyTorch side: the notebook's program, run on a case."""

from __future__ import annotations

import numpy as np
import torch

from parity.cases import TASK_NAMES, Case
from pytorch_baseline import model as baseline_model
from pytorch_baseline import pictures, training
from weights_conversion._records import Arrays, Record, load_torch, split_state, torch_array, torch_maps, torch_state

_BLOCKS = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]


def activations(weights: Arrays, images: np.ndarray, *, training: bool, dtype: str = "float64") -> Record:
    """Runs the network forward once, with hooks; arguments and result are those of `jax_side.activations`."""
    model = load_torch(baseline_model.MultiTaskNet(), weights, dtype).train(training)
    paths = {"stem": "maxpool", **{block: block for block in _BLOCKS}}
    maps = torch_maps(model.backbone, paths)
    with torch.no_grad():
        features = model.backbone(pictures.tensor_of(images, getattr(torch, dtype)))
        heads = {f"{task} logits": torch_array(getattr(model, f"{task}_head")(features)) for task in TASK_NAMES}
    _, statistics, counters = split_state(torch_state(model))
    found = {**maps, "pooled": torch_array(features), **heads}
    return Record({"activations": found, "statistics": statistics}, {"batches tracked": counters})


def train(case: Case, *, dtype: str = "float64") -> Record:
    """Trains as the notebook does on the case's batches; the result is that of `jax_side.train`."""
    model = load_torch(baseline_model.MultiTaskNet(), case.weights(), dtype)
    if case.trainable == ("layer4",):
        baseline_model.freeze_early_layers(model)
    elif case.trainable != ("all",):
        raise ValueError(f"the notebook's program trains layer4 or everything, not {case.trainable}")
    optimizer = training.make_optimizer(model)
    model.train()
    losses: Arrays = {}
    for step, batch in enumerate(case.batches(), start=1):
        images = pictures.tensor_of(batch.images, getattr(torch, dtype))
        loss, _ = training.train_step(model, optimizer, batch.task, images, torch.from_numpy(batch.labels))
        losses[f"step {step:03} {batch.task}"] = np.array(loss)
    weights, statistics, counters = split_state(torch_state(model))
    adam = {name: optimizer.state[value] for name, value in model.named_parameters() if value in optimizer.state}
    return Record(
        {
            "losses": losses,
            "weights": weights,
            "statistics": statistics,
            "first moments": {name: torch_array(moments["exp_avg"]) for name, moments in adam.items()},
            "second moments": {name: torch_array(moments["exp_avg_sq"]) for name, moments in adam.items()},
        },
        {"batches tracked": counters, "Adam steps": {name: int(moments["step"]) for name, moments in adam.items()}},
    )
