"""Pages and tables for people: report, curves, model card."""
