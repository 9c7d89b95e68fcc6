"""Weights of classes in the loss, made of how often each class occurs in what is trained on."""

import numpy as np

MOST = 100.0
"""The largest weight: a class with a handful of texts would otherwise decide every step that it occurs in."""


def of_classes(labels: np.ndarray, classes: int) -> np.ndarray:
    """(classes,) N / (classes · count) for labels (N,), at most MOST; 0 for a class that does not occur.

    These are scikit-learn's `class_weight="balanced"`. Over the texts that they are made of, they have the mean 1 if every
    class occurs.
    """
    counts = np.bincount(labels, minlength=classes)
    return np.where(counts > 0, np.minimum(len(labels) / (classes * np.maximum(counts, 1)), MOST), 0.0)


def of_positives(label_sets: list[np.ndarray], classes: int) -> np.ndarray:
    """(classes,) texts without a label / texts with it, at most MOST: `pos_weight` of torch's BCEWithLogitsLoss.

    1 for a label that no text or every text has.
    """
    counts = np.bincount(np.concatenate([np.zeros(0, dtype=np.int64), *label_sets]), minlength=classes)
    missing = len(label_sets) - counts
    return np.where((counts > 0) & (missing > 0), np.minimum(missing / np.maximum(counts, 1), MOST), 1.0)
