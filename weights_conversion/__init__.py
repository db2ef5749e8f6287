"""torch weight files to Flax modules and back, without torch.

model = to_flax(read("resnet18-f37072fd.pth"), resnet18(rngs=nnx.Rngs(0)))
write("model.safetensors", to_torch(model))
"""

from weights_conversion.convert import (
    WeightsMismatchError,
    is_trunk_only,
    nearest,
    position_size,
    recognise,
    to_flax,
    to_torch,
)
from weights_conversion.download import WEIGHTS, fetch
from weights_conversion.files import WeightsFileError, check_finite, read, read_metadata, write
from weights_conversion.heads import as_notebooks, cause_of

__all__ = [
    "WEIGHTS",
    "WeightsFileError",
    "WeightsMismatchError",
    "as_notebooks",
    "cause_of",
    "check_finite",
    "fetch",
    "is_trunk_only",
    "nearest",
    "position_size",
    "read",
    "read_metadata",
    "recognise",
    "to_flax",
    "to_torch",
    "write",
]
