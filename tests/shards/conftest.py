"""The fixture of an exported model, which the tests of it have."""

from ..prediction.test_exported import exported as exported
