"""Names of scores in tables, figures and messages."""

LABELS = {"f1": "F1", "exact_match": "EM", "accuracy": "accuracy"}
"""Key of a score among a run's metrics → its name for readers."""
