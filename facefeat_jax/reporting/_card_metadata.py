"""The metadata block of a model card, as the Hugging Face Hub parses it: YAML between two lines of `---`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from facefeat_jax.evaluation.assessment import Assessment
from facefeat_jax.evaluation.scores import METRICS
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system.markdown import Markdown
from facefeat_jax.system.text import one_line

_HUB_NAMES = {"auroc": "roc_auc", "brier": "brier_score"}
"""What the Hub calls figures that we call otherwise."""


def card_metadata(name: str, spec: ModelSpec, assessment: Assessment, limits: Sequence[str]) -> Markdown:
    """Returns the block, with its two lines of `---`.

    Args:
      name: name of the run.
      spec: what the model is.
      assessment: its evaluation; each figure comes with its 95% interval.
      limits: sentences on what the results don't say.
    """
    results = []
    for task, scores in assessment.scores.items():
        metrics = []
        for figure, value in scores.values.items():
            if value is None:
                continue
            metric: dict[str, Any] = {
                "type": _HUB_NAMES.get(figure, figure),
                "name": METRICS[figure],
                "value": round(value, 6),
            }
            if (ends := scores.intervals[figure]) is not None:
                metric["confidence_interval_95"] = [round(end, 6) for end in ends]
            metrics.append(metric)
        data = ", ".join(assessment.data)
        results.append(
            {
                "task": {"type": "image-classification", "name": task},
                "dataset": {"type": "-".join(assessment.data), "name": data, "split": "validation"},
                "metrics": metrics,
            }
        )
    content = {
        "library_name": "facefeat_jax",
        "pipeline_tag": "image-classification",
        "tags": ["jax", "flax", spec.trunk, *spec.classes],
        # The Hub's word for terms that are none of its own; the card names those of data and weights.
        "license": "other",
        "license_name": "see-data-and-terms",
        "datasets": list(assessment.data),
        "metrics": [_HUB_NAMES.get(figure, figure) for figure in METRICS],
        "limits": list(limits),
        "model-index": [{"name": name, "results": results}],
    }
    return Markdown("\n".join(["---", *_block(content), "---"]))


def _block(value: Any, indent: str = "") -> list[str]:
    """Returns the lines of a dict or list as YAML; scalars are JSON, which YAML reads too."""
    lines = []
    for key, item in value.items() if isinstance(value, dict) else ((None, item) for item in value):
        head = f"{indent}- " if key is None else f"{indent}{key}:"
        if key is None and isinstance(item, dict) and item:
            first, *rest = _block(item, indent + "  ")
            lines += [head + first.lstrip(), *rest]
        elif isinstance(item, dict | list) and item and not all(isinstance(part, float) for part in item):
            lines += [head, *_block(item, indent + "  ")]
        else:
            lines.append(f"{head.rstrip()} {_scalar(item)}")
    return lines


def _scalar(value: Any) -> str:
    # Readers of Markdown that know no metadata see this as text: no letter in it may begin anything.
    text = json.dumps(one_line(value) if isinstance(value, str) else value)
    return (
        re.sub(r"[<>\[\]`*_|&$@~:]", lambda found: f"\\u{ord(found[0]):04x}", text) if isinstance(value, str) else text
    )
