"""Figures of reports are drawn here."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_drawings() -> None:
    """Takes the place of the fixture that leaves drawing out."""
