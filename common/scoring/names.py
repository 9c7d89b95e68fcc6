"""Names of scores in tables, figures and messages."""

LABELS = {
    "f1": "F1",
    "exact_match": "EM",
    "accuracy": "accuracy",
    "f1_macro": "macro-F1",
    "f1_micro": "micro-F1",
    "f1_samples": "sample F1",
    "subset_accuracy": "subset accuracy",
}
"""Key of a score among a run's metrics → its name for readers."""
