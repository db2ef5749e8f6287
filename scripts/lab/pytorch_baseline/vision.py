"""torchvision, imported so that it also works beside a torch of another build."""

from __future__ import annotations

from weights_conversion._with_torch import import_torchvision

torchvision = import_torchvision()
