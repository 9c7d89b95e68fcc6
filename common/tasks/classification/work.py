"""What classification computes: its loss, predictions and scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..interface import Example, Extras, Figures
from . import confusion, texts


@dataclass(frozen=True)
class Prediction:
    """What a model makes of a text: the class, and the probability of every class."""

    label: int
    names: tuple[str, ...]
    probabilities: np.ndarray


def label_loss(model: Any, batch: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy summed over a batch; labels: (batch,)."""
    return torch.nn.functional.cross_entropy(model(**batch).logits.float(), labels, reduction="sum")


def predictions(outputs: tuple[np.ndarray, np.ndarray], names: tuple[str, ...]) -> list[Prediction]:
    """One for each text. outputs: as `texts.join` gives them."""
    _, logits = outputs
    each = zip(logits.argmax(axis=1).tolist(), texts.probabilities(logits), strict=True)
    return [Prediction(label, names, p) for label, p in each]


def judged(
    answers: Sequence[Mapping[str, Any]], examples: Sequence[Example]
) -> tuple[list[Prediction], list[Example]]:
    """(predictions, references) of a served model's answers, numbered alike. answers: `label`, `score`, and all other labels
    as `alternatives`; examples: with the name of the label as `label`."""
    ranked = [[answer, *(answer.get("alternatives") or ())] for answer in answers]
    names = sorted({str(each["label"]) for each in (*examples, *(e for row in ranked for e in row))})
    number = {name: i for i, name in enumerate(names)}
    found = []
    for row in ranked:
        probabilities = np.zeros(len(names))
        probabilities[[number[each["label"]] for each in row]] = [each["score"] for each in row]
        found.append(Prediction(number[row[0]["label"]], tuple(names), probabilities))
    return found, [{**example, "label": number[str(example["label"])]} for example in examples]


def score(
    predictions: Sequence[Prediction], examples: Sequence[Example]
) -> tuple[Figures, dict[str, np.ndarray]]:
    """Accuracy and F1 in percent, the latter with its interval; 0 or 1 for each example."""
    counts = matrix(predictions, examples)
    low, high = confusion.f1_interval(counts)
    figures = {
        "accuracy": confusion.accuracy(counts),
        "f1": confusion.f1(counts),
        "f1_low": low,
        "f1_high": high,
    }
    right = [float(p.label == e["label"]) for p, e in zip(predictions, examples, strict=True)]
    return {name: 100 * float(value) for name, value in figures.items()}, {"accuracy": np.array(right)}


def matrix(predictions: Sequence[Prediction], examples: Sequence[Example]) -> np.ndarray:
    """(classes, classes) counts; rows are the labels, columns the predictions."""
    labels, found = [e["label"] for e in examples], [p.label for p in predictions]
    return confusion.confusion_matrix(labels, found, len(predictions[0].names))


def extras(predictions: Sequence[Prediction], examples: Sequence[Example]) -> Extras:
    """The confusion matrix as numbers and as a figure, and the predictions as arrays."""
    counts, names = matrix(predictions, examples), predictions[0].names
    return Extras(
        documents={
            "confusion_matrix.json": {
                "labels": list(names),
                "rows": "label",
                "columns": "prediction",
                "counts": counts.tolist(),
            }
        },
        confusion={"confusion_matrix.png": (counts, names)},
        arrays={
            "preds_and_labels.npz": {
                "predictions": np.array([p.label for p in predictions], dtype=np.int64),
                "labels": np.array([e["label"] for e in examples], dtype=np.int64),
                "probabilities": np.stack([p.probabilities for p in predictions]).astype(np.float32),
            }
        },
    )
