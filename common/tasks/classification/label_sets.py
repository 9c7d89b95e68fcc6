"""What classification with any number of labels for each text computes: its loss, thresholds, predictions and scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...scoring.bootstrap import interval_of_sums
from ..interface import Example, Extras, Figures, Loss
from . import class_weights, confusion, texts
from .work import probability_arrays

UNDECIDED = 0.5
"""The threshold of a label before validation decides, and of labels that it has too few texts of."""

LEAST_POSITIVES = 10
"""Validation texts with a label that its threshold needs to be decided: the best threshold for fewer is chance."""


@dataclass(frozen=True)
class LabelSet:
    """What a model makes of a text: the labels whose probability reaches their threshold, and the probability of every label."""

    labels: tuple[int, ...]
    names: tuple[str, ...]
    probabilities: np.ndarray
    thresholds: np.ndarray

    @property
    def certainty(self) -> float:
        """The probability of the decision on the label that is least certain, 0 to 1."""
        given = self.probabilities >= self.thresholds
        return float(np.where(given, self.probabilities, 1 - self.probabilities).min())


def labels_loss(model: Any, batch: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of every label, summed over a batch; labels: (batch, classes) of 0 and 1."""
    logits = model(**batch).logits.float()
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")


def training_loss(targets: Sequence[np.ndarray], classes: int, balanced: bool, smoothing: float) -> Loss:
    """`labels_loss` with the labels that a text has weighted by their rarity, if balanced, and smoothed targets.

    Weights are those that `class_weights.of_positives` gives for texts of these targets: a 1 for each label that the text
    has, (classes,) each. smoothing: a label that a text has counts as 1 - smoothing / 2, any other as smoothing / 2.
    """
    label_sets = [np.flatnonzero(target) for target in targets]
    weights = class_weights.of_positives(label_sets, classes) if balanced else np.ones(classes)
    weight_of = torch.tensor(weights, dtype=torch.float32)

    def loss(model: Any, batch: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        logits = model(**batch).logits.float()
        if smoothing:
            labels = labels * (1 - smoothing) + smoothing / 2
        return torch.nn.functional.binary_cross_entropy_with_logits(
            logits, labels, pos_weight=weight_of.to(logits.device), reduction="sum"
        )

    return loss


def predictions(
    outputs: tuple[np.ndarray, np.ndarray], names: tuple[str, ...], thresholds: Sequence[float] | None
) -> list[LabelSet]:
    """One for each text. outputs: as `texts.join` gives them. thresholds: of each label; None: UNDECIDED."""
    limits = np.full(len(names), UNDECIDED) if thresholds is None else np.array(thresholds)
    return [
        LabelSet(tuple(np.flatnonzero(p >= limits).tolist()), names, p, limits)
        for p in texts.independent_probabilities(outputs[1])
    ]


def decide(predictions: Sequence[LabelSet], examples: Sequence[Example]) -> list[float]:
    """For each label the threshold with the highest F1 of that label on these examples (Lipton et al., 2014).

    Thresholds lie half way between neighbouring probabilities; of equally good ones the nearest to UNDECIDED is taken.
    Labels with fewer than LEAST_POSITIVES examples keep UNDECIDED.
    """
    probabilities = np.stack([p.probabilities for p in predictions])
    truth = _truth(examples, probabilities.shape[1])
    return [best_threshold(probabilities[:, i], truth[:, i]) for i in range(probabilities.shape[1])]


def best_threshold(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The threshold of one label. probabilities: (N,); truth: (N,) bool."""
    positives = int(truth.sum())
    if positives < LEAST_POSITIVES:
        return UNDECIDED
    order = np.argsort(-probabilities, kind="stable")
    ranked, right = probabilities[order], np.cumsum(truth[order])
    # Labels given to the first k texts, for every k at which the next probability is lower.
    ends: np.ndarray = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    scores = 2 * right[ends] / (ends + 1 + positives)
    below: np.ndarray = np.append(ranked[ends[:-1] + 1], 0.0)
    thresholds = (ranked[ends] + below) / 2
    # UNDECIDED itself, where it separates the same texts.
    thresholds = np.where((below < UNDECIDED) & (UNDECIDED <= ranked[ends]), UNDECIDED, thresholds)
    best = np.flatnonzero(scores >= scores.max() - 1e-12)
    return float(thresholds[best[np.argmin(np.abs(thresholds[best] - UNDECIDED))]])


def set_f1(one: set[Any], other: set[Any]) -> float:
    """F1 of two sets of labels, 0 to 1; two empty ones agree wholly."""
    return 2 * len(one & other) / (len(one) + len(other)) if one or other else 1.0


def judged(
    answers: Sequence[Mapping[str, Any]], examples: Sequence[Example]
) -> tuple[list[LabelSet], list[Example]]:
    """(predictions, references) of a served model's answers, numbered alike. answers: `labels` and their `scores`; examples:
    with the list of their labels' names as `label`."""
    names = tuple(
        sorted({name for e in examples for name in e["label"]} | {n for a in answers for n in a["labels"]})
    )
    number, limits = {name: i for i, name in enumerate(names)}, np.full(len(names), UNDECIDED)
    found = []
    for answer in answers:
        given, probabilities = tuple(sorted(number[name] for name in answer["labels"])), np.zeros(len(names))
        probabilities[[number[name] for name in answer["labels"]]] = answer["scores"]
        found.append(LabelSet(given, names, probabilities, limits))
    return found, [{**example, "label": [number[name] for name in example["label"]]} for example in examples]


def score(
    predictions: Sequence[LabelSet], examples: Sequence[Example]
) -> tuple[Figures, dict[str, np.ndarray]]:
    """Scores in percent, micro- and macro-F1 with their intervals; {metric: score of each example, 0 to 1}.

    `f1_samples`: the mean over texts of the F1 of their labels; `subset_accuracy`: the share of texts with exactly their
    labels; `f1_micro`: over all pairs of a text and a label; `f1_macro`: the mean over labels, without those that are
    neither labelled nor predicted.
    """
    pairs = [(set(p.labels), set(e["label"])) for p, e in zip(predictions, examples, strict=True)]
    each = {
        "f1_samples": np.array([set_f1(given, truth) for given, truth in pairs]),
        "subset_accuracy": np.array([float(given == truth) for given, truth in pairs]),
    }
    figures = {name: float(values.mean()) for name, values in each.items()}
    right, either = _counts(predictions, examples)
    totals = np.stack([right.sum(axis=1), either.sum(axis=1)], axis=1)
    figures["f1_micro"] = float(_micro(totals.sum(axis=0)[None])[0])
    figures["f1_micro_low"], figures["f1_micro_high"] = interval_of_sums(totals, _micro)
    sums = np.concatenate([right.sum(axis=0), either.sum(axis=0)])
    figures["f1_macro"] = float(_macro(sums[None])[0])
    from scipy.sparse import hstack

    figures["f1_macro_low"], figures["f1_macro_high"] = interval_of_sums(
        hstack([right, either], format="csr"), _macro
    )
    return {name: 100 * value for name, value in figures.items()}, each


def extras(predictions: Sequence[LabelSet], examples: Sequence[Example]) -> Extras:
    """A table of the labels with their thresholds, and the predictions as arrays."""
    names, thresholds = predictions[0].names, predictions[0].thresholds
    given = _truth([{"label": p.labels} for p in predictions], len(names))
    truth = _truth(examples, len(names))
    rows = confusion.figures_of_labels(
        (given & truth).sum(axis=0), truth.sum(axis=0), given.sum(axis=0), names
    )
    table = [row | {"threshold": round(float(t), 6)} for row, t in zip(rows, thresholds, strict=True)]
    return Extras(
        tables={"per_class.csv": table},
        arrays={
            "preds_and_labels.npz": {
                "predictions": given,
                "labels": truth,
                **probability_arrays([p.probabilities for p in predictions]),
            }
        },
    )


def _truth(examples: Sequence[Example], classes: int) -> np.ndarray:
    """(N, classes) bool: which labels each example has."""
    made: np.ndarray = np.zeros((len(examples), classes), dtype=bool)
    for i, example in enumerate(examples):
        made[i, list(example["label"])] = True
    return made


def _counts(predictions: Sequence[LabelSet], examples: Sequence[Example]) -> tuple[Any, Any]:
    """(labels that are rightly given, labels given plus labels held) of each text: (N, classes) each, sparse."""
    from scipy.sparse import csr_array

    classes = len(predictions[0].names)
    given = csr_array(_truth([{"label": p.labels} for p in predictions], classes).astype(np.int64))
    truth = csr_array(_truth(examples, classes).astype(np.int64))
    return given.multiply(truth).tocsr(), given + truth


def _micro(sums: np.ndarray) -> np.ndarray:
    """F1 from (samples, 2) sums: right, given plus held; 1 where there is nothing to give."""
    right, either = sums[:, 0], sums[:, 1]
    return np.where(either > 0, 2 * right / np.maximum(either, 1), 1.0)


def _macro(sums: np.ndarray) -> np.ndarray:
    """The mean F1 of labels from (samples, 2 · classes) sums: right for each label, then given plus held for each."""
    right, either = np.split(sums, 2, axis=1)
    return np.asarray(confusion.mean_f1(right, either))
