"""torchvision, imported so that it also works beside a torch of another build."""

from __future__ import annotations

import torch


def _import_torchvision():
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        # A CPU build of torch can't load the compiled part of torchvision's CUDA wheel. Its models and transforms are
        # plain Python, but importing it registers variants of two detection operators, whose schemas must exist.
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)  # the schemas vanish with it
        import torchvision
    import torchvision.models
    import torchvision.transforms

    return torchvision


_KEPT: list[object] = []
torchvision = _import_torchvision()
