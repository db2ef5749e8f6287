"""Pages and tables for people: report, curves, model card."""

from typing import TYPE_CHECKING

from facefeat_jax.system import public_names

if TYPE_CHECKING:
    from facefeat_jax.reporting.audit_page import write_audit as write_audit
    from facefeat_jax.reporting.curves import read_curves as read_curves
    from facefeat_jax.reporting.curves import write_curves as write_curves
    from facefeat_jax.reporting.model_card import write_model_card as write_model_card
    from facefeat_jax.reporting.report import write_report as write_report
    from facefeat_jax.reporting.samples import training_samples as training_samples
    from facefeat_jax.reporting.table import results_table as results_table
    from facefeat_jax.reporting.table import scores_table as scores_table

public_names.attach(__name__)
