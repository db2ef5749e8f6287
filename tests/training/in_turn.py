"""Runs commands on several CPU devices and watches that no two programs over all of them are in flight at once.

Run by test_devices.py: python in_turn.py DATA RUN. Prints how many programs that exchange values were called.
"""

from __future__ import annotations

import sys

from jax._src import pjit
from jax._src.interpreters import pxla

from facefeat_jax import cli

outstanding: list = []
exchanged = 0
overlaps: list[str] = []


def watched(self, *args):
    """In place of a program's call: looks whether an earlier one's results are all there."""
    global exchanged
    text = "".join(module.to_string() for module in self.xla_executable.hlo_modules())
    exchanges = any(name in text for name in ("all-reduce", "all-gather", "all-to-all", "collective-permute"))
    if exchanges:
        exchanged += 1
        overlaps.extend(self.name for value in outstanding if not value.is_deleted() and not value.is_ready())
    outstanding.clear()
    results = original(self, *args)
    if exchanges:
        outstanding.extend(results)
    return results


original, pxla.ExecuteReplicated.__call__ = pxla.ExecuteReplicated.__call__, watched
# The ways in C++ that pass it by.
pjit._get_fastpath_data = lambda *_, **__: None
pxla.MeshExecutable.create_cpp_call = lambda *_: None

data, run = sys.argv[1:]
where = ["--run", run, "--data-dir", data, "--weights", "random"]
small = ["--image-size", "32", "--batch-size", "8", "--epochs", "1", "--trainable", "layer4"]
kinds = [["--feed", "stream"], ["--feed", "device"], ["--batch-norm", "frozen", "--no-flip", "--cache-prefix"]]
for kind in kinds:
    assert cli.main(["train", "avatars", *where, *small, *kind, "--overwrite"]) == 0
assert cli.main(["audit", run]) == 0
assert cli.main(["evaluate", run]) == 0
assert not overlaps, overlaps
print(exchanged)
