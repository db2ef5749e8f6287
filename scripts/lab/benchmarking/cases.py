"""What is measured: the cases of a plan, and the plans there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from facefeat_jax.system.errors import UserError

STAGES = ("matmul", "decode", "feed", "step", "forward", "validation", "start", "job", "memory")
NOTEBOOK_EPOCHS = 5


@dataclass(frozen=True)
class Entry:
    """Who takes part in a case: the name of a side, and its settings beside the case's own."""

    side: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One comparison."""

    name: str  # of the case; unique. It begins with one of `STAGES`.
    operation: str  # what each side does
    settings: Mapping[str, Any]  # with what
    entries: Mapping[str, Entry]  # who takes part, by the name that stands in the results
    rounds: int  # how often each does it
    group: str = ""  # neighbouring cases of one group are done by the same processes
    fresh: bool = False  # each round has a process of its own, and its caches are new
    # The entries of a fresh round come one after the other and find the caches of the one before.
    keep_caches: bool = False

    @property
    def stage(self) -> str:
        """One of `STAGES`."""
        return self.name.partition("/")[0]


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    image_size: int = 224  # side of the pictures, in pixels
    rounds: int = 5  # of each case but the whole job
    round_seconds: float = 3.0  # how long a round of steps takes
    matmul_size: int = 2048
    precisions: tuple[str, ...] = ("float32",)  # the first is the one that sweeps are made in
    # By what is trained, the batch sizes in the first precision; the others take the first of them.
    step_batches: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: {"layer4": (32,), "all": (32,)})
    forward_batches: tuple[int, ...] = (1, 32)
    decode_pictures: int = 1500  # in a round
    feed_batches: int = 20  # in a round
    batch: int = 32  # pictures in a step of the feed and of whole jobs
    job_rounds: int = 2
    job_epochs: int = NOTEBOOK_EPOCHS
    # Share of the pictures that PyTorch as written goes through, once; the rest is reckoned from it. None: all of it.
    pytorch_share: float | None = None
    pytorch_pictures: int | None = None  # the most that it goes through; the same
    tuned_epochs: int | None = None  # how many PyTorch tuned does of the job; the rest is reckoned from them
    # Names of cases, or what they begin with, that PyTorch also does with torch.compile, which takes long.
    compiled: tuple[str, ...] = ("step/layer4/", "forward/")
    start_limit: int = 64  # pictures of each split in the runs that show the first and the second start
    start_rounds: int = 1
    whole_start: bool = False  # whether the whole job is started twice too: with empty caches, and with those it left
    memory_counts: tuple[int, int] = (1000, 100_000)  # pictures in the feeds whose memory is compared
    memory_image_size: int = 64
    memory_batches: int = 100  # taken from each
    synthetic: float = 0.02  # fraction of the full size that is made where no pictures are given
    distinct: int | None = None  # of the made pictures, how many differ; the others are these under further names
    # What names begin with, in the order in which cases are worth having if time runs out; the others follow.
    wanted: tuple[str, ...] = ("matmul", "job", "step", "forward", "start", "decode", "feed", "validation", "memory")


_GPU = Plan(
    rounds=3,
    round_seconds=0.5,
    matmul_size=8192,
    precisions=("bf16", "tf32", "float32"),
    step_batches={"layer4": (32, 256, 1024), "all": (32, 256)},
    forward_batches=(1, 32, 256),
    decode_pictures=6000,
    feed_batches=100,
    job_rounds=1,
    pytorch_pictures=6000,
    tuned_epochs=2,
    compiled=("step/", "forward/", "job/layer4"),
    memory_counts=(1000, 100_000),
    synthetic=1.0,
    distinct=2000,
    whole_start=True,
    # Ours, cold and warm; then step and forward; then PyTorch's job. These fill two calls of eight and four minutes.
    wanted=(
        "start/job",
        "matmul/bf16",
        "step/layer4/bf16/1024",
        "step/all/bf16/256",
        "forward/bf16/256",
        "step/layer4/bf16/32",
        "job/layer4",
        "step/all",
        "step/layer4/bf16",
        "forward",
        "start",
        "job/heads",
        "matmul",
        "decode",
        "feed",
        "validation",
        "step",
        "memory",
    ),
)

PLANS: dict[str, Plan] = {
    "cpu": Plan(),
    # The whole job on many pictures, of which PyTorch goes through one epoch.
    "cpu-job": Plan(job_rounds=1, pytorch_share=1.0, tuned_epochs=1),
    "gpu": _GPU,
    # To be made sure of before a GPU is lent: the same cases in the same order, with two small precisions.
    "rehearsal": replace(
        _GPU,
        image_size=32,
        rounds=2,
        round_seconds=0.05,
        matmul_size=128,
        precisions=("float32",),
        step_batches={"layer4": (8, 16), "all": (8, 16)},
        forward_batches=(16,),
        decode_pictures=60,
        feed_batches=4,
        batch=8,
        job_epochs=2,
        pytorch_pictures=40,
        start_limit=8,
        compiled=(),
        memory_counts=(100, 1000),
        memory_image_size=32,
        memory_batches=20,
        synthetic=0.001,
        distinct=20,
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


def cases(plan: Plan, cores: int, sides: Sequence[str], stages: Sequence[str], only: Sequence[str] = ()) -> list[Case]:
    """Returns the cases of a plan, in the order in which they are worth having if time runs out.

    Args:
      plan: how much.
      cores: how many threads and workers to use.
      sides: who there is: `ours`, and perhaps `pytorch`, `tuned` and `compiled`.
      stages: which of `STAGES`.
      only: which of their cases, by what their names begin with; none means all.

    Raises:
      UserError: there is no such stage or case.
    """
    if unknown := sorted(set(stages) - set(STAGES)):
        raise UserError(f"no stage {', '.join(unknown)}; there are {', '.join(STAGES)}")
    found = []
    for case in (*_computed(plan), *_on_pictures(plan, cores)):
        entries = {
            name: entry
            for name, entry in case.entries.items()
            if entry.side in sides and (entry.side != "compiled" or case.name.startswith(plan.compiled))
        }
        if entries and case.stage in stages:
            found.append(replace(case, entries=entries))

    def rank(case: Case) -> int:
        ranks = [number for number, start in enumerate(plan.wanted) if case.name.startswith(start)]
        # To the letter, a job takes longest, and is last.
        return min(ranks, default=len(plan.wanted)) if case.name != "job/baseline" else len(plan.wanted)

    found.sort(key=rank)
    names = [case.name for case in found]
    if absent := [one for one in only if not any(name.startswith(one) for name in names)]:
        raise UserError(f"no case begins with {', '.join(absent)}; there are {', '.join(names)}")
    return [case for case in found if case.name.startswith(tuple(only))] if only else found


def _computed(plan: Plan) -> Iterator[Case]:
    """Yields the cases that need no picture files."""
    first = plan.precisions[0]
    pictures = {"image_size": plan.image_size, "task": "gender"}
    everybody = {name: Entry(name) for name in ("ours", "pytorch", "tuned", "compiled")}
    for precision in plan.precisions:
        settings = {"precision": precision, "size": plan.matmul_size, "round_seconds": plan.round_seconds / 3}
        entries = {name: everybody[name] for name in ("ours", "tuned")}
        yield Case(f"matmul/{precision}", "matmul", settings, entries, plan.rounds, group="matmul")
    for trainable, batches in plan.step_batches.items():
        for precision in plan.precisions if trainable == "layer4" else plan.precisions[:1]:
            for batch in batches if precision == first else batches[:1]:
                entries = dict(everybody)
                if batch != batches[0]:
                    del entries["pytorch"]  # the notebook's batch size is its own
                if (trainable, precision) == ("layer4", first):
                    cached = {"batch_norm": "frozen", "after": "layer3"}
                    entries["ours, from cached outputs of layer3"] = Entry("ours", cached)
                settings = {"trainable": trainable, "precision": precision, "batch": batch, **pictures}
                settings |= {"round_seconds": plan.round_seconds}
                # In growing batches, so that the peak of the device's memory is the last one's.
                group = f"step/{trainable}/{precision}"
                yield Case(f"{group}/{batch}", "step", settings, entries, plan.rounds, group=group)
    for batch in plan.forward_batches:
        settings = {"precision": first, "batch": batch, **pictures, "round_seconds": plan.round_seconds / 2}
        yield Case(f"forward/{first}/{batch}", "forward", settings, everybody, plan.rounds, group="forward")


def _on_pictures(plan: Plan, cores: int) -> Iterator[Case]:
    """Yields the cases that begin with picture files or prepared records."""
    pictures = {"image_size": plan.image_size, "batch": plan.batch}
    of_a_task, several = {**pictures, "task": "gender"}, max(2, plan.rounds - 2)
    pytorch = {"pytorch": Entry("pytorch", {"workers": 0}), "tuned": Entry("tuned", {"workers": cores})}

    def ours(**fields: Any) -> Entry:
        return Entry("ours", {"fields": fields})

    threads = {name: Entry("ours", {"threads": n}) for name, n in (("ours", cores), ("ours, one thread", 1))}
    yield Case("decode", "decode", {**pictures, "pictures": plan.decode_pictures}, {**threads, **pytorch}, several)
    feeds = {
        "ours": ours(packed="on", feed="stream"),
        "ours, on the device": ours(packed="on", feed="device"),
        "ours, decoding anew": ours(packed="off", feed="stream"),
    }
    yield Case("feed", "feed", {**of_a_task, "batches": plan.feed_batches}, {**feeds, **pytorch}, several)
    kinds = {"ours": ours(packed="on"), "ours, decoding anew": ours(packed="off")}
    settings = {**of_a_task, "precision": plan.precisions[0]}
    yield Case("validation", "validation", settings, {**kinds, **pytorch}, 2)

    def recipe(name: str, **fields: Any) -> Entry:
        fields = {"epochs": plan.job_epochs, "batch_size": plan.batch, **fields}
        return Entry("ours", {"recipe": name, "fields": fields})

    def job(
        name: str, entries: Mapping[str, Entry], rounds: int = plan.job_rounds, *, keep_caches: bool = False
    ) -> Case:
        return Case(name, "job", pictures, entries, rounds, fresh=True, keep_caches=keep_caches)

    part, all_epochs = plan.pytorch_share, plan.job_epochs
    is_part = part is not None or plan.pytorch_pictures is not None
    written = {"workers": 0, "epochs": 1 if is_part else all_epochs, "share": 1.0 if part is None else part}
    written |= {"most_pictures": plan.pytorch_pictures}
    tuned = {"workers": cores, "epochs": plan.tuned_epochs or all_epochs, "share": 1.0}
    tuned |= {"precision": plan.precisions[0], "trainable": "layer4"}
    layer4 = {
        "ours": recipe("fast"),
        "pytorch": Entry("pytorch", {"trainable": "layer4", **written}),
        **{name: Entry(name, tuned) for name in ("tuned", "compiled")},
    }
    yield job("job/layer4", layer4)
    heads = {"ours": recipe("fast", trainable=["none"]), "pytorch": Entry("pytorch", {"trainable": "none", **written})}
    yield job("job/heads", heads)
    yield job("job/baseline", {"ours": recipe("baseline")}, 1)
    if plan.whole_start:
        yield job("start/job", {"first": recipe("fast"), "second": recipe("fast")}, 1, keep_caches=True)
    start = recipe("fast", epochs=1, limit=plan.start_limit)
    yield job("start/fast", {"first": start, "second": start}, plan.start_rounds, keep_caches=True)

    fields = {"packed": "on", "feed": "stream", "steps_per_call": 1, "tasks": ["gender"], "epochs": 200}
    counts = {f"{n:,} pictures": Entry("ours", {"count": n, "fields": fields}) for n in plan.memory_counts}
    settings = {"image_size": plan.memory_image_size, "batch": plan.batch, "batches": plan.memory_batches}
    yield Case("memory", "feed_memory", {**settings, "sources": ["fairface"]}, counts, 1, fresh=True)
