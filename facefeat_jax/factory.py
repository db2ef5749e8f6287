"""`create_model` and `create_classifier`: a model by name, with its weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from facefeat_jax.models._checks import check_options
from facefeat_jax.models._draws import Plan
from facefeat_jax.models._promotion import set_up
from facefeat_jax.models.abstract import abstract, seeded
from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.models.published import WEIGHTS, is_torchvisions_name, named_weights
from facefeat_jax.models.registry import Architecture, get_architecture
from facefeat_jax.models.trunk import Trunk
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.progress import say
from facefeat_jax.tasks import BASELINE_TASKS, Task, get_task

Module = TypeVar("Module", bound=nnx.Module)


@set_up()
def create_model(
    name: str = "resnet18",
    *,
    tasks: str | Task | Iterable[str | Task] = BASELINE_TASKS,
    weights: str | Path | None = "random",
    weights_key: str | None = None,
    rngs: nnx.Rngs | None = None,
    dtype: DTypeLike | None = None,
    param_dtype: DTypeLike = jnp.float32,
    **options: Any,
) -> MultiTaskModel:
    """Makes a model: a trunk and a head for each task.

    Like every new Flax module, it is in training mode. Call `model.eval()` before you predict.

    Args:
      name: name of the trunk; one of `list_models()`.
      tasks: names from `facefeat_jax.tasks.TASKS`, or tasks of your own. With none (`[]`) you can only use the
        model's `trunk`.
      weights: `"imagenet"` (torchvision's newest file, downloaded once into the cache), the name of one of its other
        files (`facefeat_jax.models.published`) or what torchvision calls it (`"DEFAULT"`, `"IMAGENET1K_V1"`), the path
        of a `.pth` or `.safetensors` file with torchvision's or the baseline's names, `"hf-hub:timm/resnet18.a1_in1k"`
        (timm's, from the Hugging Face Hub; the extra `hub`); or `"random"` or None. A file without heads leaves the
        heads as they started.
      weights_key: key of the weights in your own file with several sets (`weights_conversion.read`).
      rngs: source of the initial weights; the default is `nnx.Rngs(0)`.
      dtype: dtype of the computation; the default is that of inputs and parameters together.
      param_dtype: dtype of parameters and running statistics.
      **options: for the trunk; `help(facefeat_jax.models.resnet50)` and the like list them. `image_size` is for a trunk
        that is made for one size (its position embeddings are resized to it as torchvision does; at other sizes it
        also works, resizing as it runs).

    Returns:
      The model; calling it maps normalised NHWC images to `{task: logits}`.

    Raises:
      UserError: unknown model or task, weights that can't be read or don't fit, or an argument of another kind.
    """
    architecture = get_architecture(name)
    resolved = _resolved(tasks)
    if "num_classes" in options:
        raise UserError(
            "create_model makes a head for each of `tasks`, and no classifier: give tasks=[Task('name', ('a', 'b'))]; "
            f"num_classes is for a trunk alone: create_classifier({name!r}, num_classes=...)"
        )
    rngs = seeded(0) if rngs is None else rngs
    dtypes: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}
    check_options(rngs=rngs, **dtypes)
    weights = _named(weights)

    tensors, source = _tensors(architecture, weights, weights_key)
    options = _sizes(architecture, weights, tensors) | options

    def build(rngs: nnx.Rngs) -> MultiTaskModel:
        trunk = architecture.build_for(weights, **dtypes, **options, rngs=rngs)
        return MultiTaskModel(trunk, resolved, **dtypes, rngs=rngs)

    if tensors is None:
        return _drawn(build, rngs)
    import weights_conversion

    # Shapes only, so that no random trunk is drawn to be thrown away; heads are drawn where the file has none.
    model = abstract(build)
    if weights_conversion.is_trunk_only(tensors):
        features = model.trunk.num_features
        model.heads = _drawn(lambda rngs: MultiTaskModel.make_heads(features, resolved, rngs=rngs, **dtypes), rngs)
    return weights_conversion.to_flax(tensors, model, source=source)


@set_up()
def create_classifier(
    name: str = "resnet18",
    *,
    num_classes: int | None = None,
    weights: str | Path | None = "random",
    weights_key: str | None = None,
    rngs: nnx.Rngs | None = None,
    dtype: DTypeLike | None = None,
    param_dtype: DTypeLike = jnp.float32,
    **options: Any,
) -> Trunk:
    """Makes a trunk with a classifier: images to logits `[batch, num_classes]`.

    With weights, the trunk's must all be there and fit. Where `num_classes` is not the width of the file's classifier,
    that is left out and a new one is drawn, and a line on standard error says so.

    Args:
      name: name of the trunk; one of `list_models()`.
      num_classes: width of the classifier `fc`; the default is that of the weights. Random weights need it.
      weights: as in `create_model`: `"imagenet"`, a published name, the path of a file, `"random"` or None.
      weights_key: as in `create_model`.
      rngs: source of initial weights; the default is `nnx.Rngs(0)`.
      dtype: dtype of the computation; the default is that of inputs and parameters together.
      param_dtype: dtype of parameters and running statistics.
      **options: for the trunk; `help(facefeat_jax.models.resnet50)` and the like list them.

    Returns:
      The trunk, in training mode. Its classifier is `fc`; `reset_classifier` and assignment replace it.

    Raises:
      UserError: unknown model, weights that can't be read or don't fit, or an argument of another kind.
    """
    architecture = get_architecture(name)
    rngs = seeded(0) if rngs is None else rngs
    dtypes: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}
    check_options(rngs=rngs, num_classes=num_classes, **dtypes)
    weights = _named(weights)

    tensors, source = _tensors(architecture, weights, weights_key)
    options = _sizes(architecture, weights, tensors) | options

    def build(rngs: nnx.Rngs, num_classes: int | None = num_classes) -> Trunk:
        return architecture.build_for(weights, **dtypes, **options, num_classes=num_classes, rngs=rngs)

    if tensors is None:
        if num_classes is None:
            raise UserError(f"with random weights, say how many classes: create_classifier({name!r}, num_classes=10)")
        return _drawn(build, rngs)
    import weights_conversion

    width = weights_conversion.classes_of(tensors, abstract(build, num_classes=1))
    if num_classes is None and width is None:
        raise UserError(f"{source} has no classifier: say how many classes a new one has, num_classes=10")
    if num_classes in (None, width):
        return weights_conversion.to_flax(tensors, abstract(build, num_classes=width), source=source)
    trunk = weights_conversion.to_flax(tensors, abstract(build, num_classes=None), source=source)
    trunk.reset_classifier(num_classes, rngs=rngs)
    left_out = "has none" if width is None else f"is of {width} classes, and left out"
    say(f"{name}: a new classifier of {num_classes} classes is drawn; that of {source} {left_out}")
    return trunk


def _tensors(
    architecture: Architecture, weights: str | Path, key: str | None
) -> tuple[dict[str, np.ndarray] | None, str]:
    """Returns the tensors that `weights` stands for and what to call them in messages; None stands for random ones.

    Raises:
      UserError: they can't be had or read, or are not finite.
    """
    if weights == "random":
        if key is not None:
            raise UserError("weights_key is for a file of weights, and random ones are asked for; leave it out")
        return None, ""
    # Loaded on demand: a model with random weights needs none of it.
    import weights_conversion

    path = _file_of(architecture, weights)
    tensors = weights_conversion.as_notebooks(weights_conversion.read(path, key=key))
    weights_conversion.check_finite(tensors, path)
    return tensors, str(path)


def _sizes(architecture: Architecture, weights: str | Path, tensors: dict[str, np.ndarray] | None) -> dict[str, int]:
    """Returns the size of pictures that weights on the Hub are for, as an option of a trunk that has a fixed one."""
    if tensors is None or not architecture.fixed_size:
        return {}
    import weights_conversion
    from weights_conversion.timm_hub import hub_weights

    size = weights_conversion.position_size(tensors) if hub_weights(weights) else None
    return {} if size is None else {"image_size": size}


def _resolved(tasks: object) -> list[Task]:
    """Returns the tasks that are asked for.

    Raises:
      UserError: there is no such task, or the same one twice.
    """
    if isinstance(tasks, str | Task):  # a lone name is a sequence of letters to Python
        tasks = [tasks]
    if not isinstance(tasks, Iterable):
        raise UserError(f"tasks must be names or tasks, got {tasks!r:.60}")
    found = [get_task(task) for task in tasks]
    names = [task.name for task in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"the task {twice[0]!r} appears twice; each task has one head")
    return found


def _named(weights: object) -> str | Path:
    """Returns what is given as weights as a name or a path; a member of torchvision's enumerations gives its name.

    Raises:
      UserError: it is neither.
    """
    if weights is None:
        return "random"
    if isinstance(weights, str | Path):
        return weights
    if is_torchvisions_name(weights):
        return str(weights)
    raise UserError(
        f"weights must be a name such as 'imagenet', the path of a file or None (random ones), got {weights!r:.60}"
    )


def _drawn(build: Callable[[nnx.Rngs], Module], rngs: nnx.Rngs) -> Module:
    """Makes a module as one program, which the compilation cache keeps; op by op, each shape would be compiled anew.

    On CPU, LLVM optimises less: a program that runs once is not worth three times the compile time.
    """
    if isinstance(jax.device_put(np.zeros(())), jax.core.Tracer):  # inside somebody's jit or eval_shape
        return build(rngs)
    plan = Plan(build, rngs)
    rngs_graph, rngs_state = nnx.split(rngs)

    def draw(state: nnx.State) -> tuple[nnx.State, nnx.State]:
        drawing = nnx.merge(rngs_graph, state)
        return plan.draw(drawing), nnx.state(drawing)

    options = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
    values, rngs_state = jax.jit(draw, compiler_options=options)(rngs_state)
    nnx.update(rngs, rngs_state)  # as if they had been drawn from one by one
    nnx.update(plan.module, values)
    return plan.module


def _file_of(architecture: Architecture, weights: str | Path) -> Path:
    """Returns the file that `weights` stands for; downloads it where it is one of the published.

    Raises:
      UserError: those weights are another architecture's, or can't be had.
    """
    import weights_conversion
    from weights_conversion.timm_hub import fetch_timm_weights, hub_weights

    if (on_hub := hub_weights(weights)) is not None:
        return fetch_timm_weights(*on_hub)
    entry = named_weights(architecture.name, weights)
    if entry is not None:
        return weights_conversion.fetch(entry.name)
    names = ", ".join(entry.name for entry in architecture.published) or "no published weights"
    if is_torchvisions_name(weights) and not Path(weights).exists():
        enums = ", ".join(entry.enum for entry in architecture.published) or "none"
        raise UserError(f"torchvision has no weights {weights} of {architecture.name}; it has {enums}")
    if re.match(r"timm/|hf_hub:", str(weights)) and not Path(weights).exists():
        raise UserError(f"{weights} is no file; timm's weights on the Hub are given as hf-hub:timm/NAME")
    if weights == "imagenet":
        raise UserError(
            f"there are no published weights for {architecture.name}; give random, a file of your own, or timm's "
            "(hf-hub:timm/NAME)"
        )
    if str(weights) in WEIGHTS:
        raise UserError(
            f"the weights {weights} are those of {WEIGHTS[str(weights)].architecture}, not of {architecture.name}, "
            f"which has {names}"
        )
    return Path(weights)
