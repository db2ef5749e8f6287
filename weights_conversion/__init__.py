"""torch weight files to Flax modules and back, without torch.

model = to_flax(read("resnet18-f37072fd.pth"), resnet18(rngs=nnx.Rngs(0)))
write("model.safetensors", to_torch(model))
"""

from facefeat_jax.system import public_names
from weights_conversion.convert import WeightsMismatchError as WeightsMismatchError
from weights_conversion.convert import classes_of as classes_of
from weights_conversion.convert import is_trunk_only as is_trunk_only
from weights_conversion.convert import nearest as nearest
from weights_conversion.convert import position_size as position_size
from weights_conversion.convert import recognise as recognise
from weights_conversion.convert import to_flax as to_flax
from weights_conversion.convert import to_torch as to_torch
from weights_conversion.convert import torch_names as torch_names
from weights_conversion.download import WEIGHTS as WEIGHTS
from weights_conversion.download import fetch as fetch
from weights_conversion.files import WeightsFileError as WeightsFileError
from weights_conversion.files import check_finite as check_finite
from weights_conversion.files import read as read
from weights_conversion.files import read_metadata as read_metadata
from weights_conversion.files import write as write
from weights_conversion.heads import as_notebooks as as_notebooks
from weights_conversion.heads import cause_of as cause_of
from weights_conversion.hub import fetch_from_hub as fetch_from_hub
from weights_conversion.timm_hub import HubPreprocessing as HubPreprocessing
from weights_conversion.timm_hub import hub_preprocessing as hub_preprocessing

public_names.attach(__name__)
