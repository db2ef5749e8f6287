"""Options that would change nothing in a new run are refused: whoever gives one expects an effect."""

from __future__ import annotations

from facefeat_jax.config._checks import option
from facefeat_jax.config.recipes import asked
from facefeat_jax.config.train_config import TrainConfig
from facefeat_jax.system.errors import UserError
from facefeat_jax.tasks import TASKS


def require_effect(config: TrainConfig, steps: int | None = None) -> None:
    """Refuses options that would have no effect in a new run. Runs of earlier versions may keep them.

    Args:
      config: the config of the run.
      steps: number of steps in the whole run, once it is known.

    Raises:
      UserError: an option would have no effect.
    """
    optimizer, model, numerics, tasks = config.optimizer, config.model, config.numerics, config.data.tasks
    if optimizer.warmup_steps and optimizer.learning_rate_schedule == "constant":
        raise UserError(
            f"--warmup-steps {optimizer.warmup_steps} needs a schedule that warms up; give --learning-rate-schedule "
            "cosine, or --warmup-steps 0"
        )
    # In a short run the loop shortens the recipe's own warm-up, with a line. It keeps one that the user set.
    given = asked(config, "warmup_steps", "heartbeat_s", "matmul_precision", "unfreeze_every")
    if steps is not None and optimizer.warmup_steps >= steps and "warmup_steps" in given and not config.smoke:
        raise UserError(
            f"--warmup-steps {optimizer.warmup_steps} is not less than the {steps} steps of the run; give fewer (at "
            "most half of the steps are used), or more --epochs"
        )
    if steps is not None and optimizer.unfreeze_every >= steps and "unfreeze_every" in given and not config.smoke:
        raise UserError(
            f"--unfreeze-every {optimizer.unfreeze_every} is not less than the {steps} steps of the run, so the trunk "
            "would never be trained; give fewer, or --trainable none"
        )
    if model.trainable == ("none",):
        for name, idle in (("layer_decay", 1), ("unfreeze_every", 0)):
            if (value := getattr(optimizer, name)) != idle:
                raise UserError(
                    f"{option(name)} {value} is for the stages of the trunk, and --trainable none trains none; give "
                    f"{option(name)} {idle}, or other stages"
                )
    for name in ("mixup", "cutmix"):
        if getattr(config.augmentation, name) and config.batches.batch_size == 1:
            raise UserError(
                f"{option(name)} mixes the pictures of a batch, and --batch-size is 1; give {option(name)} 0, or more"
            )
    if config.augmentation.colour_jitter and all(task in TASKS and TASKS[task].about_colour for task in tasks):
        raise UserError(
            f"--colour-jitter does not change pictures with a colour label, and the only tasks are "
            f"{', '.join(tasks)}; give --colour-jitter 0"
        )
    if model.weights_key is not None and not model.weights_are_a_file:
        raise UserError(f"--weights-key is for a file, and --weights is {model.weights}; leave it out, or give a file")
    if "heartbeat_s" in given and not config.processes.distributed:
        raise UserError(
            "--heartbeat-s is for one of several processes; give it to `facefeat launch`, or with --distributed"
        )
    if (
        "matmul_precision" in given
        and numerics.matmul_precision != "default"
        and numerics.dtype in ("bfloat16", "float64")
    ):
        raise UserError(
            f"--matmul-precision {numerics.matmul_precision} is for float32 products, of which --dtype "
            f"{numerics.dtype} has none; give --dtype float32, or --matmul-precision default"
        )
