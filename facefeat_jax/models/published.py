"""The weights that torchvision publishes for our trunks: address, digest, accuracy, preprocessing and terms.

The table is the only place that knows an address or a hash. `weights_conversion.fetch` downloads and checks a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facefeat_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from facefeat_jax.system.kinds import Interpolation


@dataclass(frozen=True)
class PublishedWeights:
    """A published file of weights.

    Attributes:
      name: what `fetch` and `create_model` call it: the file's name without its suffix. It ends in the first eight
        digits of the SHA-256.
      architecture: the model it fits.
      enum: what torchvision calls it.
      top1: accuracy on ImageNet-1k's validation pictures in percent, as torchvision publishes it.
      image_size: side in pixels of the square pictures that the published accuracy was measured on.
      resize: pixels to which the shorter side of a picture is resized before the centre crop.
      interpolation: interpolation of that resizing.
      sha256: of the whole file, in hexadecimal; None where only the eight digits in its name are known.
      size: its length in bytes; None where only `mebibytes` is known.
      mebibytes: its length as torchvision publishes it, to three decimals.
      mean: per channel, subtracted from pictures in [0, 1].
      std: per channel, divided by.
      licence: terms of use.
      origin: who trained it, on what.
    """

    name: str
    architecture: str
    enum: str
    top1: float
    image_size: int
    resize: int
    interpolation: Interpolation
    sha256: str | None
    size: int | None
    mebibytes: float
    licence: str
    origin: str
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @property
    def file(self) -> str:
        """Name of the file, in the cache and on a mirror."""
        return f"{self.name}.pth"

    @property
    def url(self) -> str:
        """Where it is published."""
        return f"https://download.pytorch.org/models/{self.file}"

    @property
    def digits(self) -> str:
        """The first eight hexadecimal digits of its SHA-256, which its name ends in."""
        return self.name.rpartition("-")[2]

    def has_digest(self, sha256: str | None) -> bool:
        """Returns whether a file with that SHA-256 is this file, as far as is known: all digits, or the first eight."""
        return sha256 is not None and (sha256 == self.sha256 if self.sha256 else sha256.startswith(self.digits))

    def may_have_size(self, size: int) -> bool:
        """Returns whether a file of that many bytes may be this file."""
        return size == self.size if self.size else round(size / 2**20, 3) == self.mebibytes


_TORCHVISION = "BSD-3-Clause (torchvision); ImageNet's pictures are for non-commercial research"
_SWAG = "CC-BY-NC 4.0 (SWAG): no commercial use"
_SIMPLE = "trained by torchvision on ImageNet-1k with the papers' simple recipe"
_NEW = "trained by torchvision on ImageNet-1k with its longer, later recipe"
_TIMM = "trained by Google, ported by torchvision from pytorch-image-models (Apache-2.0)"
_AUTOML = "trained by Google, ported by torchvision from the papers' own implementation (Apache-2.0)"
_LUKEMELAS = "trained by Google, ported by torchvision from EfficientNet-PyTorch (Apache-2.0)"
_DEIT = "trained by torchvision on ImageNet-1k from scratch, with a recipe like DeiT's"
_SWAG_WHOLE = "SWAG: trained by Meta on Instagram hashtags, the whole network fine-tuned on ImageNet-1k"
_SWAG_LINEAR = "SWAG: trained by Meta on Instagram hashtags, a linear classifier on top trained on ImageNet-1k"

# Facts of torchvision 0.28 (tests/compare holds every field to it). It checks no more of a file than the eight digits
# in its name. The full digests and sizes are those that public projects, independently of torchvision, pin for these
# files; they were not recomputed from complete files here. Where nobody was found to pin it, it is None, and the eight
# digits are what a download is held to. The first of an architecture is what `weights="imagenet"` means, which is
# torchvision's DEFAULT.
_TABLE = (
    # name, torchvision's name, top-1, crop, resize, interpolation, SHA-256, bytes, MiB, licence, origin
    ("resnet18-f37072fd", "IMAGENET1K_V1", 69.758, 224, 256, "bilinear",
     "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec", 46_830_571, 44.661, _TORCHVISION, _SIMPLE),
    ("resnet18-5c106cde", "before 0.10", 69.758, 224, 256, "bilinear",
     "5c106cde386e87d4033832f2996f5493238eda96ccf559d1d62760c4de0613f8", 46_827_520, 44.658, _TORCHVISION,
     "the weights of resnet18-f37072fd in the older file format"),
    ("resnet34-b627a593", "IMAGENET1K_V1", 73.314, 224, 256, "bilinear",
     "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f", None, 83.275, _TORCHVISION, _SIMPLE),
    ("resnet50-11ad3fa6", "IMAGENET1K_V2", 80.858, 224, 232, "bilinear",
     "11ad3fa62ca79e40addfd354a8ec4b7c75143b3038b8d2a807fbc68deab379ca", 102_540_417, 97.79, _TORCHVISION, _NEW),
    ("resnet50-0676ba61", "IMAGENET1K_V1", 76.13, 224, 256, "bilinear",
     "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a", 102_530_333, 97.781, _TORCHVISION, _SIMPLE),
    ("resnet101-cd907fc2", "IMAGENET1K_V2", 81.886, 224, 232, "bilinear",
     "cd907fc2a0de2292b2ba2b27d2216bc672d84632d1cf20058d01c0c03b5e020e", None, 170.53, _TORCHVISION, _NEW),
    ("resnet101-63fe2227", "IMAGENET1K_V1", 77.374, 224, 256, "bilinear",
     "63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a", None, 170.511, _TORCHVISION, _SIMPLE),
    ("resnet152-f82ba261", "IMAGENET1K_V2", 82.284, 224, 232, "bilinear",
     None, None, 230.474, _TORCHVISION, _NEW),
    ("resnet152-394f9c45", "IMAGENET1K_V1", 78.312, 224, 256, "bilinear",
     "394f9c45966e3651a89bbb78a48410a6755854ce4a5ab64927cf1c7247f85e58", None, 230.434, _TORCHVISION, _SIMPLE),
    ("resnext50_32x4d-1a0047aa", "IMAGENET1K_V2", 81.198, 224, 232, "bilinear",
     None, None, 95.833, _TORCHVISION, _NEW),
    ("resnext50_32x4d-7cdf4587", "IMAGENET1K_V1", 77.618, 224, 256, "bilinear",
     None, None, 95.789, _TORCHVISION, _SIMPLE),
    ("resnext101_32x8d-110c445d", "IMAGENET1K_V2", 82.834, 224, 232, "bilinear",
     None, None, 339.673, _TORCHVISION, _NEW),
    ("resnext101_32x8d-8ba56ff5", "IMAGENET1K_V1", 79.312, 224, 256, "bilinear",
     None, None, 339.586, _TORCHVISION, _SIMPLE),
    ("resnext101_64x4d-173b62eb", "IMAGENET1K_V1", 83.246, 224, 232, "bilinear",
     None, None, 319.318, _TORCHVISION, _NEW),
    ("wide_resnet50_2-9ba9bcbe", "IMAGENET1K_V2", 81.602, 224, 232, "bilinear",
     None, None, 263.124, _TORCHVISION, _NEW),
    ("wide_resnet50_2-95faca4d", "IMAGENET1K_V1", 78.468, 224, 256, "bilinear",
     None, None, 131.82, _TORCHVISION, _SIMPLE),
    ("wide_resnet101_2-d733dc28", "IMAGENET1K_V2", 82.510, 224, 232, "bilinear",
     None, None, 484.747, _TORCHVISION, _NEW),
    ("wide_resnet101_2-32ee1156", "IMAGENET1K_V1", 78.848, 224, 256, "bilinear",
     None, None, 242.896, _TORCHVISION, _SIMPLE),
    ("efficientnet_b0_rwightman-7f5810bc", "IMAGENET1K_V1", 77.692, 224, 256, "bicubic",
     "7f5810bc96def8f7552d5b7e68d53c4786f81167d28291b21c0d90e1fca14934", None, 20.451, _TORCHVISION, _TIMM),
    ("efficientnet_b1-c27df63c", "IMAGENET1K_V2", 79.838, 240, 255, "bilinear",
     "c27df63ce6eb17ef8bcea58922fd3a254cba910c720f41ee89d64d99fb7a4ddf", None, 30.136, _TORCHVISION, _NEW),
    ("efficientnet_b1_rwightman-bac287d4", "IMAGENET1K_V1", 78.642, 240, 256, "bicubic",
     None, None, 30.134, _TORCHVISION, _TIMM),
    ("efficientnet_b2_rwightman-c35c1473", "IMAGENET1K_V1", 80.608, 288, 288, "bicubic",
     None, None, 35.174, _TORCHVISION, _TIMM),
    ("efficientnet_b3_rwightman-b3899882", "IMAGENET1K_V1", 82.008, 300, 320, "bicubic",
     None, None, 47.184, _TORCHVISION, _TIMM),
    ("efficientnet_b4_rwightman-23ab8bcd", "IMAGENET1K_V1", 83.384, 380, 384, "bicubic",
     "23ab8bcd5bdbef61a7a43b91adcad81f622fd7f36fb4935a569828d77888c44e", None, 74.489, _TORCHVISION, _TIMM),
    ("efficientnet_b5_lukemelas-1a07897c", "IMAGENET1K_V1", 83.444, 456, 456, "bicubic",
     None, None, 116.864, _TORCHVISION, _LUKEMELAS),
    ("efficientnet_b6_lukemelas-24a108a5", "IMAGENET1K_V1", 84.008, 528, 528, "bicubic",
     None, None, 165.362, _TORCHVISION, _LUKEMELAS),
    ("efficientnet_b7_lukemelas-c5b4e57e", "IMAGENET1K_V1", 84.122, 600, 600, "bicubic",
     None, None, 254.675, _TORCHVISION, _LUKEMELAS),
    ("efficientnet_v2_s-dd5fe13b", "IMAGENET1K_V1", 84.228, 384, 384, "bilinear",
     None, None, 82.704, _TORCHVISION, _NEW),
    ("efficientnet_v2_m-dc08266a", "IMAGENET1K_V1", 85.112, 480, 480, "bilinear",
     None, None, 208.01, _TORCHVISION, _NEW),
    ("efficientnet_v2_l-59c71312", "IMAGENET1K_V1", 85.808, 480, 480, "bicubic",
     None, None, 454.573, _TORCHVISION, _AUTOML, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ("vit_b_16-c867db91", "IMAGENET1K_V1", 81.072, 224, 256, "bilinear",
     "c867db91d3e12c6cbadabb610d73c24a546bf82d8c03a9fea34f43a712ddb0e9", None, 330.285, _TORCHVISION, _DEIT),
    ("vit_b_16_swag-9ac1b537", "IMAGENET1K_SWAG_E2E_V1", 85.304, 384, 384, "bicubic",
     "9ac1b5378d9927bd6c8374ce0cd557ef80e1b3f8fbc1859df332c4dc9d0fd825", None, 331.398, _SWAG, _SWAG_WHOLE),
    ("vit_b_16_lc_swag-4e70ced5", "IMAGENET1K_SWAG_LINEAR_V1", 81.886, 224, 224, "bicubic",
     None, None, 330.285, _SWAG, _SWAG_LINEAR),
    ("vit_b_32-d86f8d99", "IMAGENET1K_V1", 75.912, 224, 256, "bilinear",
     None, None, 336.604, _TORCHVISION, _DEIT),
    ("vit_l_16-852ce7e3", "IMAGENET1K_V1", 79.662, 224, 242, "bilinear",
     None, None, 1161.023, _TORCHVISION, _DEIT),
    ("vit_l_16_swag-4f3808c9", "IMAGENET1K_SWAG_E2E_V1", 88.064, 512, 512, "bicubic",
     None, None, 1164.258, _SWAG, _SWAG_WHOLE),
    ("vit_l_16_lc_swag-4d563306", "IMAGENET1K_SWAG_LINEAR_V1", 85.146, 224, 224, "bicubic",
     None, None, 1161.023, _SWAG, _SWAG_LINEAR),
    ("vit_l_32-c7638314", "IMAGENET1K_V1", 76.972, 224, 256, "bilinear",
     None, None, 1169.449, _TORCHVISION, _DEIT),
    ("convnext_tiny-983f1562", "IMAGENET1K_V1", 82.52, 224, 236, "bilinear",
     None, None, 109.119, _TORCHVISION, _NEW),
    ("convnext_small-0c510722", "IMAGENET1K_V1", 83.616, 224, 230, "bilinear",
     None, None, 191.703, _TORCHVISION, _NEW),
    ("convnext_base-6075fbad", "IMAGENET1K_V1", 84.062, 224, 232, "bilinear",
     None, None, 338.064, _TORCHVISION, _NEW),
    ("convnext_large-ea097f82", "IMAGENET1K_V1", 84.414, 224, 232, "bilinear",
     None, None, 754.537, _TORCHVISION, _NEW),
)  # fmt: skip


def _entry(row: tuple[Any, ...]) -> PublishedWeights:
    name = row[0]
    # What every file's name begins with.
    kinds = r"resnet\d+|resnext\d+_\w+|wide_resnet\d+_2|efficientnet_(?:b\d|v2_\w)|vit_[bl]_\d+|convnext_\w+"
    architecture = re.match(kinds, name)
    assert architecture is not None, name
    return PublishedWeights(name, architecture[0], *row[1:])


WEIGHTS: dict[str, PublishedWeights] = {row[0]: _entry(row) for row in _TABLE}


def weights_of(architecture: str) -> tuple[PublishedWeights, ...]:
    """Returns what is published for an architecture; the first is what `weights="imagenet"` means."""
    return tuple(entry for entry in WEIGHTS.values() if entry.architecture == architecture)


def named_weights(architecture: str, weights: object) -> PublishedWeights | None:
    """Returns the published weights that a name stands for, or None where it is no name of any of the architecture's.

    Args:
      architecture: name of the trunk.
      weights: `imagenet`, a name in `WEIGHTS`, or what torchvision calls them: `DEFAULT`, `IMAGENET1K_V1`, also with
        the class (`ResNet18_Weights.IMAGENET1K_V1`) or as a member of it.
    """
    published = weights_of(architecture)
    text = str(weights)
    kind, _, name = text.rpartition(".")
    if kind and kind.lower() != f"{architecture}_weights":
        name = ""
    if published and (text == "imagenet" or name == "DEFAULT"):
        return published[0]
    return next((entry for entry in published if entry.name == text or entry.enum == name), None)


def is_torchvisions_name(weights: object) -> bool:
    """Returns whether a text is what torchvision calls weights, of whatever architecture."""
    return re.fullmatch(r"(\w+_Weights\.)?(DEFAULT|[A-Z][A-Z0-9]*_[A-Z0-9_]+)", str(weights)) is not None


def find_weights(architecture: str, weights: str | Path) -> PublishedWeights | None:
    """Returns the published weights that a recipe's `weights` stands for, or None.

    Args:
      architecture: name of the trunk.
      weights: as for `named_weights`, or the path of a file that has kept its published name.
    """
    stem = Path(weights).stem
    entry = next((entry for entry in weights_of(architecture) if entry.name == stem), None)
    return named_weights(architecture, weights) or entry
