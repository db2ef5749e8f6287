"""This project's side of the comparison: its stages, with the operations counted. The main of its worker processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jax import monitoring

from benchmarking.flops import forward_flops, step_flops
from benchmarking.pictures import read_listing
from facefeat_jax.benchmarking import stages
from facefeat_jax.benchmarking.measure import Measurement, Settings
from facefeat_jax.models.resnet import ResNet
from facefeat_jax.system.errors import UserError
from facefeat_jax.training import _groups as groups


def decode(settings: Settings) -> Measurement:
    """Picture files to uint8 pixels of one size, by threads: the files that the other sides decode."""
    files = read_listing(Path(settings["listing"])).files("train")[: settings["pictures"]]
    return stages.decode_all(
        lambda number: files[number].read_bytes(), len(files), settings["image_size"], settings["threads"]
    )


def anonymous_bytes() -> int | None:
    """Returns the bytes of memory that belong to no file: what this process holds however full the page cache is.

    Pages of a memory-mapped file don't count, since the system can drop them. None where the system doesn't say.
    """
    try:
        for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
            if line.startswith("Anonymous:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def feed_memory(settings: Settings) -> Measurement:
    """The training feed in a process that does nothing else; the round's figure is the most memory it held."""
    opened = stages.TrainingFeed(stages.config_of(settings, batch_size=settings["batch"]), settings["batches"])

    def run() -> dict[str, Any]:
        most = anonymous_bytes()
        if most is None:
            raise UserError("this system doesn't say how much anonymous memory a process holds")
        for number, _ in enumerate(opened.batches()):
            if number % 10 == 9:
                most = max(most, anonymous_bytes() or 0)
        return {"images": opened.images, "feed_anonymous_bytes": most}

    return Measurement(run, about={"feed": opened.name})


def step(settings: Settings) -> Measurement:
    """The training step, with the count of its operations."""
    measurement = stages.step(settings)
    trained = groups.trained_modules(ResNet.STAGES, (settings["trainable"],))
    flops = step_flops(stages.spec_of(settings), (settings["task"],), trained, after=settings.get("after"))
    measurement.about["flops_per_image"] = flops
    return measurement


def forward(settings: Settings) -> Measurement:
    """The evaluation step, with the count of its operations."""
    measurement = stages.forward(settings)
    measurement.about["flops_per_image"] = forward_flops(stages.spec_of(settings), (settings["task"],))
    return measurement


# What JAX reports of its own compiling, in seconds. Reading a program from the persistent cache counts as compiling.
_COMPILE_EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "trace_seconds",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower_seconds",
    "/jax/core/compile/backend_compile_duration": "compile_seconds",
}


def _count_compiling() -> dict[str, float]:
    """Returns sums that go on growing as this process compiles."""
    sums = dict.fromkeys(_COMPILE_EVENTS.values(), 0.0)

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event in _COMPILE_EVENTS:
            sums[_COMPILE_EVENTS[event]] += duration_secs

    monitoring.register_event_duration_secs_listener(listen)
    return sums


def job(settings: Settings) -> Measurement:
    """A whole training run, with what JAX says of its compiling in place of what the run says."""
    measured = stages.job(settings)

    def run() -> dict[str, Any]:
        compiling = _count_compiling()
        return {**measured.run(), **compiling}

    return Measurement(run, measured.about)


OPERATIONS = {
    **stages.OPERATIONS,
    **{operation.__name__: operation for operation in (decode, feed_memory, step, forward, job)},
}

if __name__ == "__main__":
    stages.main(OPERATIONS)
