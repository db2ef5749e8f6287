"""Live comparison with PyTorch: `make compare`. Skipped, and said so, where torch is not installed."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

# torch's threads spin while they wait for one another; on a busy machine that makes it several times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).resolve().parent
    absent = [name for name in ("torch", "torchvision") if importlib.util.find_spec(name) is None]
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.compare)
            if absent:
                item.add_marker(pytest.mark.skip(reason=f"{' and '.join(absent)} not installed; run make compare"))
