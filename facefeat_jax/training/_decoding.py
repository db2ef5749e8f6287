"""When the pictures of a training are decoded by another process, beside all that comes before its first step.

Imports no JAX: the first to decide this is the command, before the slow imports.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from facefeat_jax.config import TrainConfig
from facefeat_jax.data._decoding_process import DecodingProcess
from facefeat_jax.data.dataset import count_prepared, default_data_dir
from facefeat_jax.data.pixels import PixelFormat

_LEAST = 2048  # pictures: fewer are decoded before the process is of any use


def decode_at_once(config: TrainConfig) -> AbstractContextManager[DecodingProcess | None]:
    """Begins to decode where it is known already how: published weights may ask for another interpolation.

    Args:
      config: what to do.

    Returns:
      A context that gives the process, as `decode_ahead`.
    """
    if config.resume or config.model.weights != "random":
        return nullcontext()
    return decode_ahead(config, PixelFormat(config.data.image_size, config.data.decode))


def decode_ahead(config: TrainConfig, pixels: PixelFormat) -> AbstractContextManager[DecodingProcess | None]:
    """Begins to decode the pictures that will be read from the cache.

    Args:
      config: what to do.
      pixels: how its pictures are decoded.

    Returns:
      A context that gives the process, and ends it. It gives None where pictures are few or don't go through the cache,
      and where several trainings that belong together would each start a process.
    """
    data, pipeline = config.data, config.pipeline
    if pipeline.packed == "off" or pipeline.cache_prefix or config.processes.distributed:
        return nullcontext()
    data_dir = data.data_dir or default_data_dir()
    counts = [count for source in data.sources for count in count_prepared(source, data_dir).values()]
    if sum(min(count, data.limit or count) for count in counts) < _LEAST:
        return nullcontext()
    return DecodingProcess(data.sources, data_dir, pixels, limit=data.limit, disjoint=data.disjoint)
