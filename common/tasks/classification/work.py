"""What classification with one label for each text computes: its loss, predictions and scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...scoring.calibration import Candidates
from ..interface import Example, Extras, Figures, Loss
from . import class_weights, confusion, texts

MOST_PROBABILITIES = 20
"""Labels whose probabilities a row of predictions/test.json holds, the likeliest ones: all of a thousand would be gigabytes."""

LARGEST_ARRAY = 20_000_000
"""Probabilities that preds_and_labels.npz holds at most; of more, each text keeps its MOST_PROBABILITIES likeliest labels."""

LARGEST_MATRIX = 100
"""Classes up to which confusion_matrix.json holds the whole matrix, beyond which it lists the cells that are not 0."""


@dataclass(frozen=True)
class Prediction:
    """A model's prediction for a text: the class, and the probability of every class."""

    label: int
    names: tuple[str, ...]
    probabilities: np.ndarray


def label_loss(model: Any, batch: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy summed over a batch; labels: (batch,)."""
    return torch.nn.functional.cross_entropy(model(**batch).logits.float(), labels, reduction="sum")


def training_loss(labels: Sequence[int], classes: int, balanced: bool, smoothing: float) -> Loss:
    """`label_loss` with each text weighted by its class, if balanced, and smoothed labels.

    Weights are those that `class_weights.of_classes` gives for texts of these labels. Sums are divided by the number of
    texts, as without weights: their mean weight is 1, so the learning rate keeps its meaning, and a text has the same
    gradient in whatever batch it is. smoothing: the share of a label's probability that is spread over all classes.
    """
    weights = class_weights.of_classes(np.array(labels), classes) if balanced else np.ones(classes)
    weight_of = torch.tensor(weights, dtype=torch.float32)

    def loss(model: Any, batch: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        logits = model(**batch).logits.float()
        weight = weight_of.to(logits.device)
        if not smoothing:
            return torch.nn.functional.cross_entropy(logits, labels, weight=weight, reduction="sum")
        # torch would weight each class's share by that class, not by the text's.
        each = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
        return (weight[labels] * each).sum()

    return loss


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
    """Accuracy and F1 in percent, F1 with its interval; 0 or 1 for each example.

    `f1` is that of the second class where there are two; `f1_macro` is the mean over the classes.
    """
    counts = matrix(predictions, examples)
    low, high = confusion.f1_macro_interval(counts)
    figures = {
        "accuracy": confusion.accuracy(counts),
        "f1_macro": confusion.f1_macro(counts),
        "f1_macro_low": low,
        "f1_macro_high": high,
    }
    if len(counts) == 2:
        figures["f1"] = confusion.f1(counts)
        figures["f1_low"], figures["f1_high"] = confusion.f1_interval(counts)
    right = [float(p.label == e["label"]) for p, e in zip(predictions, examples, strict=True)]
    return {name: 100 * float(value) for name, value in figures.items()}, {"accuracy": np.array(right)}


def candidates(predictions: Sequence[Prediction]) -> Candidates:
    """Each text's labels with the logarithms of their probabilities, and which one was given."""
    if not predictions:
        return Candidates.of([], [])
    scores: np.ndarray = np.stack([p.probabilities for p in predictions], dtype=np.float64)
    with np.errstate(divide="ignore"):
        np.log(scores, out=scores)
    return Candidates.of_table(scores, [p.label for p in predictions])


def matrix(predictions: Sequence[Prediction], examples: Sequence[Example]) -> np.ndarray:
    """(classes, classes) counts; rows are the labels, columns the predictions."""
    labels, found = [e["label"] for e in examples], [p.label for p in predictions]
    return confusion.confusion_matrix(labels, found, len(predictions[0].names))


def likeliest(probabilities: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Label → probability, in the order of the labels; of many labels the MOST_PROBABILITIES likeliest."""
    if len(names) <= MOST_PROBABILITIES:
        return dict(zip(names, probabilities.tolist(), strict=True))
    kept = np.sort(np.argsort(-probabilities, kind="stable")[:MOST_PROBABILITIES])
    return {names[i]: float(probabilities[i]) for i in kept}


def probability_arrays(probabilities: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """`probabilities`, (N, classes) float32; of very many the likeliest, beside their `probability_labels`, (N, kept)."""
    if len(probabilities) * len(probabilities[0]) <= LARGEST_ARRAY:
        return {"probabilities": np.stack(probabilities).astype(np.float32)}
    order = [np.argsort(-p, kind="stable")[:MOST_PROBABILITIES] for p in probabilities]
    kept = [p[o] for p, o in zip(probabilities, order, strict=True)]
    return {
        "probabilities": np.stack(kept).astype(np.float32),
        "probability_labels": np.stack(order).astype(np.int32),
    }


def extras(predictions: Sequence[Prediction], examples: Sequence[Example]) -> Extras:
    """The confusion matrix as numbers and as a figure, a table of the classes, and the predictions as arrays."""
    counts, names = matrix(predictions, examples), predictions[0].names
    content: dict[str, Any] = {"labels": list(names), "rows": "label", "columns": "prediction"}
    if len(names) <= LARGEST_MATRIX:
        content["counts"] = counts.tolist()
    else:
        content["cells"] = [[int(i), int(j), int(counts[i, j])] for i, j in np.argwhere(counts)]
    return Extras(
        documents={"confusion_matrix.json": content},
        tables={"per_class.csv": confusion.rows_of_classes(counts, names)},
        confusion={"confusion_matrix.png": (counts, names)},
        arrays={
            "preds_and_labels.npz": {
                "predictions": np.array([p.label for p in predictions], dtype=np.int64),
                "labels": np.array([e["label"] for e in examples], dtype=np.int64),
                **probability_arrays([p.probabilities for p in predictions]),
            }
        },
    )
