"""What is measured: the cases of a plan, and the plans there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from facefeat_jax.system.errors import UserError

STAGES = ("matmul", "decode", "feed", "step", "forward", "validation", "start", "job", "memory")
NOTEBOOK_EPOCHS = 5


@dataclass(frozen=True)
class Entry:
    """Who takes part in a case.

    Attributes:
      side: name of the side.
      settings: beside the case's own.
    """

    side: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
      name: of the case; unique.
      stage: one of `STAGES`.
      operation: what each side does.
      settings: with what.
      entries: who takes part, by the name that stands in the results.
      rounds: how often each does it.
      group: neighbouring cases of one group are done by the same processes.
      fresh: each round has a process of its own, and its caches are new.
      keep_caches: the entries of a fresh round come one after the other and find the caches of the one before.
    """

    name: str
    stage: str
    operation: str
    settings: Mapping[str, Any]
    entries: Mapping[str, Entry]
    rounds: int
    group: str = ""
    fresh: bool = False
    keep_caches: bool = False


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
      image_size: side of the pictures, in pixels.
      rounds: of each case but the whole job.
      round_seconds: how long a round of steps takes.
      matmul_size: side of the matrices.
      precisions: of products and steps; the first is the one that sweeps are made in.
      step_batches: by what is trained, the batch sizes in the first precision; the others take the first of them.
      forward_batches: pictures at a time.
      decode_pictures: how many files a round decodes.
      feed_batches: how many batches a round takes.
      batch: pictures in a step of the feed and of whole jobs.
      job_rounds: of the whole job.
      job_epochs: passes over the data.
      pytorch_share: share of the pictures that PyTorch as written goes through, once; the rest is reckoned from it.
        None: all of the job.
      tuned_epochs: how many epochs PyTorch tuned does of the job; the rest is reckoned from them.
      compiled: names of cases, or what they begin with, that PyTorch also does with torch.compile, which takes long.
      start_limit: pictures of each split in the runs that show the first and the second start.
      start_rounds: of those.
      memory_counts: pictures in the feeds whose memory is compared.
      memory_image_size: their side.
      memory_batches: how many batches are taken from each.
      synthetic: fraction of the full size that is made where no pictures are given.
    """

    image_size: int = 224
    rounds: int = 5
    round_seconds: float = 3.0
    matmul_size: int = 2048
    precisions: tuple[str, ...] = ("float32",)
    step_batches: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: {"layer4": (32,), "all": (32,)})
    forward_batches: tuple[int, ...] = (1, 32)
    decode_pictures: int = 1500
    feed_batches: int = 20
    batch: int = 32
    job_rounds: int = 2
    job_epochs: int = NOTEBOOK_EPOCHS
    pytorch_share: float | None = None
    tuned_epochs: int | None = None
    compiled: tuple[str, ...] = ("step/layer4/", "forward/")
    start_limit: int = 64
    start_rounds: int = 1
    memory_counts: tuple[int, int] = (1000, 100_000)
    memory_image_size: int = 64
    memory_batches: int = 100
    synthetic: float = 0.02


PLANS: dict[str, Plan] = {
    "cpu": Plan(),
    # The whole job on many pictures, of which PyTorch goes through one epoch.
    "cpu-job": Plan(job_rounds=1, pytorch_share=1.0, tuned_epochs=1),
    "gpu": Plan(
        rounds=5,
        round_seconds=0.5,
        matmul_size=8192,
        precisions=("bf16", "tf32", "float32"),
        step_batches={"layer4": (32, 256, 1024), "all": (32, 256), "none": (32,)},
        decode_pictures=6000,
        feed_batches=100,
        job_rounds=1,
        pytorch_share=0.2,
        tuned_epochs=2,
        compiled=("step/", "forward/", "job/layer4"),
        memory_counts=(1000, 100_000),
        synthetic=1.0,
    ),
    "quick": Plan(
        image_size=32,
        rounds=2,
        round_seconds=0.1,
        matmul_size=256,
        step_batches={"layer4": (8,), "all": (8,)},
        forward_batches=(1, 8),
        decode_pictures=60,
        feed_batches=4,
        batch=8,
        job_rounds=1,
        job_epochs=1,
        start_limit=8,
        memory_counts=(100, 1000),
        compiled=(),
        memory_image_size=32,
        memory_batches=20,
        synthetic=0.001,
    ),
}

Device = Literal["cpu", "gpu"]


def cases(
    plan: Plan, device: Device, cores: int, sides: Sequence[str], stages: Sequence[str], only: Sequence[str] = ()
) -> list[Case]:
    """Returns the cases of a plan, in the order in which they are worth having if time runs out.

    Args:
      plan: how much.
      device: what is computed on.
      cores: how many threads and workers to use.
      sides: who there is: `ours`, and perhaps `pytorch`, `tuned` and `compiled`.
      stages: which of `STAGES`.
      only: which of their cases, by what their names begin with; none means all.

    Raises:
      UserError: there is no such stage or case.
    """
    if unknown := sorted(set(stages) - set(STAGES)):
        raise UserError(f"no stage {', '.join(unknown)}; there are {', '.join(STAGES)}")
    makers = (
        ("matmul", _matmul),
        ("job", _job),
        ("step", _step),
        ("forward", _forward),
        ("start", _start),
        ("decode", _decode),
        ("feed", _feed),
        ("validation", _validation),
        ("memory", _memory),
        ("job", _job_to_the_letter),
    )
    found = []
    for stage, make in makers:
        for case in make(plan, device, cores) if stage in stages else ():
            entries = {
                name: entry
                for name, entry in case.entries.items()
                if entry.side in sides and (entry.side != "compiled" or case.name.startswith(plan.compiled))
            }
            if entries:
                found.append(Case(**{**case.__dict__, "entries": entries}))
    names = [case.name for case in found]
    if absent := [one for one in only if not any(name.startswith(one) for name in names)]:
        raise UserError(f"no case begins with {', '.join(absent)}; there are {', '.join(names)}")
    return [case for case in found if case.name.startswith(tuple(only))] if only else found


def _everybody() -> dict[str, Entry]:
    return {name: Entry(name) for name in ("ours", "pytorch", "tuned", "compiled")}


def _matmul(plan: Plan, device: Device, cores: int) -> Iterator[Case]:
    for precision in plan.precisions:
        yield Case(
            f"matmul/{precision}",
            "matmul",
            "matmul",
            {"precision": precision, "size": plan.matmul_size, "round_seconds": plan.round_seconds / 3},
            {name: Entry(name) for name in ("ours", "tuned")},
            plan.rounds,
            group="matmul",
        )


def _step(plan: Plan, device: Device, cores: int) -> Iterator[Case]:
    for trainable, batches in plan.step_batches.items():
        for precision in plan.precisions if trainable == "layer4" else plan.precisions[:1]:
            for batch in batches if precision == plan.precisions[0] else batches[:1]:
                entries = _everybody()
                if batch != batches[0]:
                    del entries["pytorch"]  # the notebook's batch size is its own
                if (trainable, precision) == ("layer4", plan.precisions[0]):
                    cached = {"batch_norm": "frozen", "after": "layer3"}
                    entries["ours, from cached outputs of layer3"] = Entry("ours", cached)
                yield Case(
                    f"step/{trainable}/{precision}/{batch}",
                    "step",
                    "step",
                    {
                        "trainable": trainable,
                        "precision": precision,
                        "batch": batch,
                        "image_size": plan.image_size,
                        "task": "gender",
                        "round_seconds": plan.round_seconds,
                    },
                    entries,
                    plan.rounds,
                    # In growing batches, so that the peak of the device's memory is the last one's.
                    group=f"step/{trainable}/{precision}",
                )


def _forward(plan: Plan, device: Device, cores: int) -> Iterator[Case]:
    for batch in plan.forward_batches:
        yield Case(
            f"forward/{plan.precisions[0]}/{batch}",
            "forward",
            "forward",
            {
                "precision": plan.precisions[0],
                "batch": batch,
                "image_size": plan.image_size,
                "task": "gender",
                "round_seconds": plan.round_seconds / 2,
            },
            _everybody(),
            plan.rounds,
            group="forward",
        )


def _decode(plan: Plan, device: Device, cores: int) -> Iterator[Case]:
    yield Case(
        "decode",
        "decode",
        "decode",
        {"pictures": plan.decode_pictures, "image_size": plan.image_size, "batch": plan.batch},
        {
            "ours": Entry("ours", {"threads": cores}),
            "ours, one thread": Entry("ours", {"threads": 1}),
            "pytorch": Entry("pytorch", {"workers": 0}),
            "tuned": Entry("tuned", {"workers": cores}),
        },
        max(2, plan.rounds - 2),
    )


def _feed(plan: Plan, device: Device, cores: int) -> Iterator[Case]:
    yield Case(
        "feed",
        "feed",
        "feed",
        {"batches": plan.feed_batches, "image_size": plan.image_size, "batch": plan.batch, "task": "gender"},
        {
            "ours": Entry("ours", {"fields": {"packed": "on", "feed": "stream"}}),
            "ours, on the device": Entry("ours", {"fields": {"packed": "on", "feed": "device"}}),
            "ours, decoding anew": Entry("ours", {"fields": {"packed": "off", "feed": "stream"}}),
            "pytorch": Entry("pytorch", {"workers": 0}),
            "tuned": Entry("tuned", {"workers": cores}),
        },
        max(2, plan.rounds - 2),
    )


def _validation(plan: Plan, device: Device, cores: int) -> Iterator[Case]:
    yield Case(
        "validation",
        "validation",
        "validation",
        {
            "precision": plan.precisions[0],
            "image_size": plan.image_size,
            "batch": plan.batch,
            "task": "gender",
        },
        {
            "ours": Entry("ours", {"fields": {"packed": "on"}}),
            "ours, decoding anew": Entry("ours", {"fields": {"packed": "off"}}),
            "pytorch": Entry("pytorch", {"workers": 0}),
            "tuned": Entry("tuned", {"workers": cores}),
        },
        2,
    )


def _job_settings(plan: Plan) -> dict[str, Any]:
    return {"image_size": plan.image_size, "batch": plan.batch}


def _recipe(recipe: str, plan: Plan, **fields: Any) -> dict[str, Any]:
    return {"recipe": recipe, "fields": {"epochs": plan.job_epochs, "batch_size": plan.batch, **fields}}


def _job(plan: Plan, device: Device, cores: int) -> Iterator[Case]:
    precision = plan.precisions[0]
    written = {
        "workers": 0,
        "epochs": plan.job_epochs if plan.pytorch_share is None else 1,
        "share": 1.0 if plan.pytorch_share is None else plan.pytorch_share,
    }
    tuned = {
        "workers": cores,
        "epochs": plan.job_epochs if plan.tuned_epochs is None else plan.tuned_epochs,
        "share": 1.0,
        "precision": precision,
    }
    entries = {
        "ours": Entry("ours", _recipe("fast", plan)),
        "pytorch": Entry("pytorch", {"trainable": "layer4", **written}),
        "tuned": Entry("tuned", {"trainable": "layer4", **tuned}),
    }
    entries["compiled"] = Entry("compiled", {"trainable": "layer4", **tuned})
    yield Case("job/layer4", "job", "job", _job_settings(plan), entries, plan.job_rounds, fresh=True)
    heads = {
        "ours": Entry("ours", _recipe("fast", plan, trainable=["none"])),
        "pytorch": Entry("pytorch", {"trainable": "none", **written}),
    }
    yield Case("job/heads", "job", "job", _job_settings(plan), heads, plan.job_rounds, fresh=True)


def _job_to_the_letter(plan: Plan, device: Device, cores: int) -> Iterator[Case]:
    entries = {"ours": Entry("ours", _recipe("baseline", plan))}
    yield Case("job/baseline", "job", "job", _job_settings(plan), entries, 1, fresh=True)


def _start(plan: Plan, device: Device, cores: int) -> Iterator[Case]:
    entry = Entry("ours", _recipe("fast", plan, epochs=1, limit=plan.start_limit))
    entries = {"first": entry, "second": entry}
    settings = _job_settings(plan)
    yield Case("start/fast", "start", "job", settings, entries, plan.start_rounds, fresh=True, keep_caches=True)


def _memory(plan: Plan, device: Device, cores: int) -> Iterator[Case]:
    feed = {"packed": "on", "feed": "stream", "steps_per_call": 1}
    yield Case(
        "memory",
        "memory",
        "feed_memory",
        {
            "image_size": plan.memory_image_size,
            "batch": plan.batch,
            "batches": plan.memory_batches,
            "sources": ["fairface"],
        },
        {
            f"{count:,} pictures": Entry(
                "ours", {"count": count, "fields": {**feed, "tasks": ["gender"], "epochs": 200}}
            )
            for count in plan.memory_counts
        },
        1,
        fresh=True,
    )
