"""Pages and tables for people: report, curves, model card."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facefeat_jax.system import lazy

if TYPE_CHECKING:
    from facefeat_jax.reporting.audit_page import write_audit
    from facefeat_jax.reporting.curves import read_curves, write_curves
    from facefeat_jax.reporting.model_card import write_model_card
    from facefeat_jax.reporting.report import training_samples, write_report
    from facefeat_jax.reporting.table import results_table, scores_table

_MODULES = {
    "facefeat_jax.reporting.audit_page": ["write_audit"],
    "facefeat_jax.reporting.curves": ["read_curves", "write_curves"],
    "facefeat_jax.reporting.model_card": ["write_model_card"],
    "facefeat_jax.reporting.report": ["training_samples", "write_report"],
    "facefeat_jax.reporting.table": ["results_table", "scores_table"],
}

__all__ = [
    "read_curves",
    "results_table",
    "scores_table",
    "training_samples",
    "write_audit",
    "write_curves",
    "write_model_card",
    "write_report",
]

__getattr__, __dir__ = lazy.names(__name__, _MODULES)
