"""A benchmark's results, made up: what the report is made from."""

from __future__ import annotations

import copy
from typing import Any

import pytest

_ENVIRONMENT = {
    "processor": "Abacus",
    "cores": 2,
    "memory_bytes": 8 * 2**30,
    "devices": "cpu x1",
    "system": "Linux x86_64",
    "python": "3.11.0",
    "versions": {"jax": "0.10.2", "torch": "2.13.0"},
    "variables": {},
}


def case(name: str, entries: dict[str, dict[str, Any]], **settings: Any) -> dict[str, Any]:
    stage = name.partition("/")[0]
    return {"name": name, "stage": stage, "operation": stage, "settings": settings, "entries": entries}


def steps(side: str, rates: list[float], **about: Any) -> dict[str, Any]:
    return {
        "side": side,
        "settings": {},
        "about": {"compile_seconds": 1.5, **about},
        "rounds": [{"seconds": 2.0, "images": 2 * rate, "calls": 1} for rate in rates],
        "after": {},
    }


def jobs(side: str, rounds: list[dict[str, Any]], **settings: Any) -> dict[str, Any]:
    return {"side": side, "settings": settings, "rounds": [{"images": 500, **one} for one in rounds]}


@pytest.fixture
def made_up() -> dict[str, Any]:
    """Results on CPU of the plan `cpu`; tests change them."""
    step = {"trainable": "layer4", "precision": "float32", "batch": 32}
    forward = {"precision": "float32", "batch": 1}
    found = [
        case(
            "matmul/float32",
            {"ours": steps("ours", [1], flops_per_call=4e11), "tuned": steps("tuned", [1], flops_per_call=2e11)},
            precision="float32",
            size=2048,
        ),
        case(
            "job/layer4",
            {
                "ours": jobs("ours", [{"wall_seconds": 26.0, "epochs": 5, "compile_seconds": 8.0}], recipe="fast"),
                "pytorch": jobs(
                    "pytorch", [{"wall_seconds": 23.0, "epochs": 1, "share": 0.5, "epoch_seconds": [20.0]}], workers=0
                ),
                "tuned": jobs(
                    "tuned",
                    [
                        {
                            "wall_seconds": 65.0,
                            "epochs": 5,
                            "share": 1.0,
                            "epoch_seconds": [20.0, 10.0, 10.0, 10.0, 10.0],
                        }
                    ],
                    workers=2,
                ),
            },
        ),
        case(
            "step/layer4/float32/32",
            {
                "ours": steps("ours", [30.0, 33.0, 27.0], flops_per_image=5e9),
                "pytorch": steps("pytorch", [20.0, 22.0, 18.0]),
                "tuned": steps("tuned", [40.0, 44.0, 36.0]),
                "compiled": {"side": "compiled", "settings": {}, "rounds": [], "error": "RuntimeError: no compiler"},
            },
            **step,
        ),
        case(
            "forward/float32/1",
            {
                "ours": steps("ours", [90.0], flops_per_image=3.6e9),
                "pytorch": steps("pytorch", [60.0]),
                "tuned": steps("tuned", [45.0]),
            },
            **forward,
        ),
        case(
            "start/fast",
            {
                name: jobs(
                    "ours",
                    [{"wall_seconds": wall, "compile_seconds": part, "trace_seconds": 1.0, "lower_seconds": 0.5}],
                )
                for name, wall, part in (("first", 20.0, 8.0), ("second", 13.0, 1.0))
            },
        ),
        {**case("decode", {}), "skipped": "no time left of 60 s"},
        case(
            "memory",
            {
                f"{count} pictures": jobs("ours", [{"feed_anonymous_bytes": held}])
                for count, held in (("1,000", 200 * 2**20), ("100,000", 210 * 2**20))
            },
        ),
    ]
    results = {
        "format": 1,
        "date": "2026-01-01 00:00 UTC",
        "command": "python scripts/benchmark.py run",
        "commit": "abc",
        "plan": "cpu",
        "device": "cpu",
        "environment": _ENVIRONMENT,
        "sides": {
            "ours": {"title": "facefeat_jax", "absent": ""},
            "pytorch": {"title": "PyTorch as written", "absent": ""},
            "tuned": {"title": "PyTorch tuned", "absent": ""},
            "compiled": {"title": "PyTorch compiled", "absent": ""},
        },
        "data": {
            "kind": "real",
            "fraction": 0.1,
            "counts": {"train": {"gender": 320}, "val": {"gender": 80}},
            "mean_file_bytes": 5000,
            "prepare_seconds": {"fairface": 2.0, "glasses": 1.0, "apparel": 1.0},
        },
        "cases": found,
    }
    return copy.deepcopy(results)
