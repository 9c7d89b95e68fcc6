"""How far a model's confidence can be believed: temperature, calibration error, risk against coverage.

Confidence is a probability from 0 to 1 that a model gives to its own answer; an answer is right or wrong as a whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

BINS = 15
"""Bins of a calibration error, as Guo et al. (2017) and most papers after them have them."""

LEAST = 10
"""Right answers, and wrong answers, without which no temperature is fitted: one number from a handful of errors is noise."""

TEMPERATURES = (0.05, 20.0)
"""The lowest and the highest temperature that is looked at."""

_TINY = 1e-12


@dataclass(frozen=True)
class Candidates:
    """What N examples could have been answered with, and what they were answered with.

    score: (M,) logits of the candidates of all examples, one example after the other, at least one each; -inf for what
    cannot be the answer. first: (N,) the index where each example's candidates begin. given: (N,) the index, among the M,
    of the answer that was given.
    """

    score: np.ndarray
    first: np.ndarray
    given: np.ndarray

    @classmethod
    def of(cls, scores: Sequence[Sequence[float]], given: Sequence[int]) -> "Candidates":
        """From each example's scores and the index among them of the answer that was given.

        An example without any candidate counts as answered with confidence 0.
        """
        rows = [list(row) or [-np.inf, 0.0] for row in scores]
        counts = np.array([len(row) for row in rows], dtype=np.int64)
        first = np.cumsum(counts) - counts
        places = np.array(
            [i if len(row) else 0 for i, row in zip(given, scores, strict=True)], dtype=np.int64
        )
        score = np.array([value for row in rows for value in row], dtype=np.float64)
        return cls(score, first, first + places)

    @classmethod
    def of_table(cls, scores: np.ndarray, given: Sequence[int]) -> "Candidates":
        """From scores (N, C) of as many candidates each, and the index among the C of the answer that was given."""
        first = np.arange(len(scores), dtype=np.int64) * scores.shape[1]
        return cls(scores.ravel(), first, first + np.asarray(given, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.first)

    @cached_property
    def _below_highest(self) -> np.ndarray:
        """(M,) score less the highest of its example. The search for a temperature asks for it some 75 times."""
        counts: np.ndarray = np.diff(np.append(self.first, len(self.score)))
        return self.score - np.repeat(np.maximum.reduceat(self.score, self.first), counts)

    def confidence(self, temperature: float = 1.0) -> np.ndarray:
        """(N,) the probability of the given answer: the softmax over its example's candidates of score / temperature."""
        # In place: the arrays may be large.
        weight: np.ndarray = self._below_highest / temperature
        np.exp(weight, out=weight)
        return weight[self.given] / np.add.reduceat(weight, self.first)


def log_loss(confidence: np.ndarray, right: np.ndarray) -> float:
    """Mean of -log of what confidence gave to what happened. confidence, right: (N,)."""
    sure = np.clip(confidence, _TINY, 1 - _TINY)
    return float(-np.where(right, np.log(sure), np.log1p(-sure)).mean())


def fit_temperature(candidates: Candidates, right: np.ndarray) -> float:
    """The temperature at which the confidence in the given answers fits whether they are right (N,) best.

    It minimises the log loss of right against wrong, plus (log T)^2 / 2 over all examples together: a standard normal prior
    on log T, which counts for less than one example and only matters where there are few. For two classes that is the
    temperature scaling of Guo et al. (2017), "On Calibration of Modern Neural Networks"; with more candidates it fits
    the confidence in the answer alone, because often none of the candidates is right. One positive number changes no order
    of candidates, so no answer. 1.0 where fewer than LEAST are right, or fewer than LEAST are wrong.
    """
    from scipy.optimize import minimize_scalar

    right = np.asarray(right, dtype=bool)
    if min(np.count_nonzero(right), np.count_nonzero(~right)) < LEAST:
        return 1.0

    def cost(log_temperature: float) -> float:
        loss = log_loss(candidates.confidence(float(np.exp(log_temperature))), right)
        return len(right) * loss + log_temperature**2 / 2

    low, high = np.log(TEMPERATURES)
    # The loss may have several valleys, as no candidate need be right: the lowest point of a grid is refined.
    grid = np.linspace(low, high, 61)
    best = int(np.argmin([cost(value) for value in grid]))
    around = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    found = float(minimize_scalar(cost, bounds=around, method="bounded", options={"xatol": 1e-5}).x)
    return float(np.exp(found)) if cost(found) < cost(0.0) else 1.0


class Bin(NamedTuple):
    """Examples of similar confidence: how many, their mean confidence, and the share of them that is right."""

    examples: int
    confidence: float
    right: float


def reliability(
    confidence: np.ndarray, right: np.ndarray, bins: int = BINS, equal_mass: bool = True
) -> list[Bin]:
    """The examples in bins by confidence, lowest first; empty bins are left out.

    equal_mass: bins hold as many examples each as is possible. Equal confidences may fall into two; each of these examples
    counts as right as often as they are on average, so that the order of the examples does not matter. Otherwise the bins
    are the `bins` equal parts of 0 to 1.
    """
    confidence = np.asarray(confidence, dtype=np.float64)
    right = _tie_means(confidence, np.asarray(right, dtype=np.float64))
    order = np.argsort(confidence, kind="stable")
    if equal_mass:
        parts = np.array_split(order, bins)
    else:
        edges = np.searchsorted(confidence[order], np.linspace(0, 1, bins + 1)[1:-1], side="right")
        parts = np.split(order, edges)
    return [
        Bin(len(part), float(confidence[part].mean()), float(right[part].mean()))
        for part in parts
        if len(part)
    ]


def calibration_error(
    confidence: np.ndarray, right: np.ndarray, bins: int = BINS, equal_mass: bool = True
) -> float:
    """Expected calibration error, 0 to 1: the mean over examples of |share right - mean confidence| of their bin.

    Naeini et al. (2015) and Guo et al. (2017) have bins of equal width; those of equal mass (Nixon et al., 2019) do not
    hang on a few examples where most confidences are near 1.
    """
    table = reliability(confidence, right, bins, equal_mass)
    total = sum(each.examples for each in table)
    return sum(each.examples * abs(each.right - each.confidence) for each in table) / total


def risk_coverage(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(coverage, risk), (N,) each: the share of wrong answers among the k most confident of N, for k of 1 to N.

    El-Yaniv and Wiener (2010). Of examples of equal confidence no order is better: each counts as wrong as often as they
    are on average.
    """
    confidence, wrong = np.asarray(confidence, dtype=np.float64), 1.0 - np.asarray(right, dtype=np.float64)
    order = np.argsort(-confidence, kind="stable")
    counts = np.arange(1, len(confidence) + 1)
    return counts / len(confidence), np.cumsum(_tie_means(confidence, wrong)[order]) / counts


def _tie_means(confidence: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(N,) for each example the mean of the values (N,) of all examples of its confidence (N,)."""
    _, tie, ties = np.unique(confidence, return_inverse=True, return_counts=True)
    means: np.ndarray = np.bincount(tie, values) / ties
    return means[tie]


def aurc(confidence: np.ndarray, right: np.ndarray) -> float:
    """Area under the risk-coverage curve, 0 to 1, lower is better: the mean risk over all coverages (Geifman et al., 2019)."""
    return float(risk_coverage(confidence, right)[1].mean())
