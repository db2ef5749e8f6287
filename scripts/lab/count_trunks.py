"""Counts parameters and multiply-adds of every trunk, and writes them to facefeat_jax/models/counts.json.

    python scripts/lab/count_trunks.py

To be run when a trunk was added or changed; a test compares. Counting all takes some fifteen seconds, which a listing
should not.
"""

from __future__ import annotations

import json

from facefeat_jax.models._listing import COUNTS, count
from facefeat_jax.models.registry import ARCHITECTURES

if __name__ == "__main__":
    counted = {name: count(architecture) for name, architecture in ARCHITECTURES.items()}
    COUNTS.write_text(json.dumps(counted, indent=1) + "\n", encoding="utf-8")
