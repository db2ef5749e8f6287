"""Sets a training up: data, model, step, programs and feeds. Nothing of it is on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import jax
import numpy as np
import psutil
from flax import nnx

from facefeat_jax.config import TrainConfig, apply_smoke
from facefeat_jax.config._checks import option
from facefeat_jax.config._effect import require_effect
from facefeat_jax.config.recipes import asked
from facefeat_jax.data.builders import know
from facefeat_jax.data.dataset import default_data_dir
from facefeat_jax.data.index_stream import Call, Pass
from facefeat_jax.data.pixels import PixelFormat
from facefeat_jax.data.placement import Placement
from facefeat_jax.evaluation.evaluate import Evaluator
from facefeat_jax.factory import create_model
from facefeat_jax.models._promotion import set_up
from facefeat_jax.models._values import split_values
from facefeat_jax.models.abstract import seeded
from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.models.registry import get_architecture
from facefeat_jax.models.trunk import POOLED
from facefeat_jax.runs import run_config, run_folder
from facefeat_jax.runs.data_record import DataRecord, copies_note, require_same
from facefeat_jax.runs.spec import NUMERICS, ModelSpec
from facefeat_jax.system.distributed import is_first
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.programs import Programs
from facefeat_jax.system.progress import say, waiting
from facefeat_jax.system.runtime import set_numerics
from facefeat_jax.tasks import get_task
from facefeat_jax.training import _automatic as automatic
from facefeat_jax.training import _groups as groups
from facefeat_jax.training import _out_of_memory as out_of_memory
from facefeat_jax.training import steps
from facefeat_jax.training._prefix import Prefix, last_frozen
from facefeat_jax.training.data import Inputs, RunData, open_data


@dataclass(frozen=True, eq=False)
class Session:
    """What a training needs, ready to run.

    Attributes:
      config: what to do, every choice made.
      spec: what the model is.
      data: the pictures, and which of them each step takes.
      record: the identity of the data.
      placement: the devices.
      eval_graph: graph definition of the model in evaluation mode.
      state: the state, as shapes.
      begin: makes the state before the first step; to be called once. Random weights are drawn only now, while the
        programs are being compiled. The first call of the step takes its buffers.
      train_call: the jitted call of the step (`steps.make_train_call`).
      learning_rates: `[num_steps]`, float32, for the logs.
      evaluator: runs the heads over the validation pictures.
      prefix: the stages that are computed once a picture; None where there are none.
      inputs: the feeds, planned.
      programs: the compiled programs.
    """

    config: TrainConfig
    spec: ModelSpec
    data: RunData
    record: DataRecord
    placement: Placement
    eval_graph: nnx.GraphDef
    state: steps.TrainState
    begin: Callable[[], steps.TrainState]
    train_call: Callable[..., Any]
    learning_rates: np.ndarray
    evaluator: Evaluator
    prefix: Prefix | None
    inputs: Inputs
    programs: Programs

    def calls(self, one: Pass, start: int = 0) -> list[Call]:
        """Returns the calls of a pass from the step `start` on."""
        return [call for call in one.calls(self.config.pipeline.steps_per_call) if call.first_step >= start]

    def compile_ahead(self) -> None:
        """Begins to compile all programs of the run, those that are needed first in front; see `Programs.add_later`."""
        if self.prefix is not None:
            self.prefix.compile_ahead()
        state, layout, heads = self.state, self.inputs.validation, len(self.config.data.tasks)
        add = self.programs.add
        for one in self.data.stream.passes:
            # A pass has thousands of calls of one kind, and may end with one of another.
            for kind, call in {(call.tasks, call.num_steps): call for call in self.calls(one)}.items():
                of = "" if len(call.tasks) == heads else f" of {'+'.join(call.tasks)}"
                lower = partial(self._lower, state, call, self.config.batches.batch_size)
                add(kind, lower, f"the training step{of}")
                add = self.programs.add_later
            lower = partial(self.evaluator.lower, state.params, state.batch_stats, layout)
            self.programs.add_later("predict", lower, "the validation")

    def _lower(self, state: steps.TrainState, call: Call, batch_size: int) -> jax.stages.Lowered:
        layout = self.inputs.training
        batches = layout.batches(call, self.placement.round_up(batch_size))
        return self.train_call.lower(state, layout.table(), batches, tasks=call.tasks)  # type: ignore[attr-defined]

    def out_of_memory(self) -> UserError:
        """Returns the error that says what would fit, after memory has run out."""
        device = self.placement.device
        return out_of_memory.advise(
            partial(self._lower, self.state, self.calls(self.data.stream.passes[0])[0]),
            self.config.batches.batch_size,
            table_bytes=self.inputs.table_bytes,
            limit=(device.memory_stats() or {}).get("bytes_limit") or psutil.virtual_memory().total,
            device=device.device_kind,
            is_shared=device.platform != "cpu",
        )


def open_session(config: TrainConfig) -> Session:
    """Looks at everything that can be refused, then makes what the training needs.

    Args:
      config: what to do; `smoke` is applied here.

    Raises:
      UserError: something in the config, the data or the weights can't be used, or the run folder holds something else.
    """
    config = _settled(config)
    placement, optimizer, batch_size = Placement(), config.optimizer, config.batches.batch_size
    padded_size = placement.round_up(batch_size)
    data = open_data(config.data, config.batches, seed=config.seed, padded_size=padded_size)
    num_steps = len(data.stream)
    if not config.resume:
        require_effect(config, num_steps)
        if num_steps // 2 < optimizer.warmup_steps:
            say(f"warm-up: {num_steps // 2} steps instead of {optimizer.warmup_steps}, half of all steps")
    is_restored = config.resume and run_folder.has_checkpoint(config.run)
    spec = _spec(config, data, is_restored=is_restored)
    frozen, architecture = config.model.batch_norm == "frozen", get_architecture(config.model.trunk)
    trained = groups.trained_modules(architecture.stages, config.model.trainable, architecture.last)
    until = last_frozen(architecture.stages, trained) if config.pipeline.cache_prefix else None
    if frozen and {*chain.from_iterable(architecture.stages.values())} <= {*trained}:
        say("--batch-norm frozen: without effect, since all stages of the trunk are trained")
    pipeline = automatic.choose_steps_per_call(config.pipeline, heads_alone=until == POOLED)
    # Files of weights are read at once, since they may be refused.
    made = [] if is_restored or config.model.weights == "random" else [_model(config, spec)]
    model = spec.abstract()
    record = _recorded(config.run, data, placement, is_restored=is_restored)
    programs = Programs(deterministic=config.numerics.deterministic)
    train_graph, eval_graph = steps.graphdefs(model, trained, freeze_batch_norm=frozen)
    learning_rate = groups.learning_rate_schedule(optimizer, num_steps)
    with set_up():
        # All at once and as one program: of the schedule's operations each would be one.
        rates = jax.jit(jax.vmap(learning_rate))
        learning_rates = jax.device_get(rates(np.arange(num_steps, dtype=np.int32)))
    parts = groups.parts(model.trunk, trained, optimizer.unfreeze_every)
    if not config.resume and (late := sum(part.first_step >= num_steps for part in parts)):
        say(f"--unfreeze-every {optimizer.unfreeze_every}: {late} of {len(parts)} stages are never trained")
    state = steps.shapes_of_state(model, trained, optimizer=optimizer, placement=placement)
    dtype = config.numerics.dtype
    options = steps.StepOptions(
        trained,
        learning_rate,
        dtype,
        optimizer=optimizer,
        augmentation=config.augmentation,
        seed=config.seed,
        after=until,
    )
    prefix = None
    if until is not None:
        params, batch_stats = placement.local.shapes((state.params, state.batch_stats))
        prefix = Prefix(eval_graph, params, batch_stats, spec, dtype, until, placement.local, programs)

    def begin() -> steps.TrainState:
        if made:
            start = made.pop()
        else:
            with waiting("drawing random weights"):
                start = _model(config, spec)
        if prefix is not None:
            # The model's own: the state has copies of them, whose buffers the first step takes.
            prefix.use(*placement.own_copies(placement.replicate(split_values(start)[1:])))
        return placement.replicate(steps.create_state(start, trained, optimizer=optimizer))

    pixels = PixelFormat(spec.image_size, spec.decode, spec.interpolation)
    inputs = Inputs(pipeline, pixels, data, prefix, placement)
    if inputs.feed == "device" and (idle := asked(config, "feed_threads", "feed_prefetch")):
        given = " and ".join(map(option, idle))
        say(f"{given}: without effect, since the pictures lie on the device; --feed stream reads them on the host")
    return Session(
        config=dataclasses.replace(config, pipeline=dataclasses.replace(pipeline, feed=inputs.feed)),
        spec=spec,
        data=data,
        record=record,
        placement=placement,
        eval_graph=eval_graph,
        state=state,
        begin=begin,
        train_call=steps.make_train_call(steps.make_step(train_graph, spec, options), placement),
        learning_rates=learning_rates,
        evaluator=Evaluator(
            eval_graph, spec, data.validation, placement, batch_size=batch_size, dtype=dtype, after=until
        ),
        prefix=prefix,
        inputs=inputs,
        programs=programs,
    )


def own_copies(state: steps.TrainState, placement: Placement) -> tuple[Any, Any]:
    """Returns parameters and statistics that stay, on this process's devices, when the state's buffers are taken."""
    return placement.own_copies(steps.copied((state.params, state.batch_stats)))


def _settled(config: TrainConfig) -> TrainConfig:
    """Returns the config with the choices that depend on the machine or on an earlier run made; sets the numerics."""
    config = apply_smoke(config)
    know(config.data.sources, config.data.data_dir or default_data_dir())
    for task in config.data.tasks:
        get_task(task)  # a run that was trained elsewhere may have tasks that are not in this table; a new one may not
    if config.resume:
        config = automatic.with_earlier_choices(config, run_folder.read_config(config.run))
    config = dataclasses.replace(config, numerics=automatic.choose_dtype(config.numerics))
    if not config.resume:
        require_effect(config)
    set_numerics(config.numerics.dtype, config.numerics.param_dtype, config.numerics.matmul_precision)
    # Everything that can be refused is looked at before the run folder is touched.
    if is_first():
        run_config.check_folder(config)
    return config


def _spec(config: TrainConfig, data: RunData, *, is_restored: bool) -> ModelSpec:
    """Returns what the model is; a resumed run keeps its own, even if the tables have changed."""
    numerics = {name: getattr(config.numerics, name) for name in NUMERICS}
    earlier = run_folder.newest_spec(config.run, before=numerics) if is_restored else None
    return earlier or ModelSpec.following(
        config.model.trunk,
        data.classes,
        config.data.image_size,
        config.data.decode,
        str(config.model.weights),
        **numerics,
    )


def _model(config: TrainConfig, spec: ModelSpec) -> MultiTaskModel:
    """Returns the model with the weights that the run begins with."""
    with set_up():
        return create_model(
            config.model.trunk,
            tasks=spec.tasks,
            weights=config.model.weights,
            weights_key=config.model.weights_key,
            rngs=seeded(config.seed),
            dtype=config.numerics.dtype,
            param_dtype=config.numerics.param_dtype,
            **spec.trunk_options,
        )


def _recorded(run: Path, data: RunData, placement: Placement, *, is_restored: bool) -> DataRecord:
    """Returns the record of the data; refuses data that are not those of the run that is resumed."""
    record = DataRecord.of(data.training, data.validation)
    checksum = record.checksum()
    if placement.least(checksum) != -placement.least(-checksum):
        raise UserError("the processes have different data; prepare the same on each host")
    if is_restored and (unchecked := require_same(run, record)):
        say(unchecked)
    if doubled := int(np.isin(data.validation.digests(), record.trained).sum()):
        say(copies_note(doubled, len(data.validation)))
    return record
