"""Arrays as the signatures name them: dtype and shape, in jaxtyping's terms.

An axis of one name has one size wherever it stands in a signature; `_` and `...` are any. The tests check every call
against them (tests/session.py); outside the tests they are words.
"""

from __future__ import annotations

from jax import Array
from jaxtyping import Bool, Float, UInt8

Pictures = UInt8[Array, "*batch height width channels"]
"""Before `normalize`."""

Images = Float[Array, "batch height width channels"]
"""After it: what trunks take."""

Stage = Float[Array, "batch ..."]
"""A stage's output, or images: maps `[batch, height, width, features]` or tokens `[batch, tokens, features]`."""

Maps = Float[Array, "batch height width features"]
"""What convolutions take."""

NewMaps = Float[Array, "batch new_height new_width new_features"]
"""Maps that other maps were turned into."""

Tokens = Float[Array, "batch tokens features"]
"""What a Vision Transformer's blocks take and give."""

Attention = Float[Array, "batch heads tokens tokens"]
"""How much each token of a block takes from each other."""

Features = Float[Array, "batch features"]
"""Pooled: a row for each picture."""

Logits = Float[Array, "batch outputs"]
"""What heads and classifiers give."""

Mask = Bool[Array, " batch"]
"""True for real rows, false for those that only pad a batch."""
