"""Names of scores in tables, figures and messages."""

import re

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


def in_metric(name: str) -> str:
    """A name as a part of a metric's, in which MLflow allows ASCII letters, digits and a few marks."""
    return re.sub(r"[^\w. -]", "_", name, flags=re.ASCII)
