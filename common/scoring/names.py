"""Scores as tables, figures and messages name them."""

LABELS = {"f1": "F1", "exact_match": "EM", "accuracy": "accuracy"}
"""Key of a score among a run's metrics → what a reader sees."""
