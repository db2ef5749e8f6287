"""Answers for millions of pictures, by any number of workers on any number of machines."""

from typing import TYPE_CHECKING

from facefeat_jax.system import public_names

if TYPE_CHECKING:
    from facefeat_jax.shards.run import predict_shards as predict_shards

public_names.attach(__name__)
