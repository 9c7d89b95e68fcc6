"""How far what is served lies from what a model was tested on: distances of two samples with bounds and tests.

Numbers are compared by the Kolmogorov-Smirnov distance, the largest difference of the two cumulative shares, categories by
the total variation distance, half the sum of the differences of their shares. Both are 0 (alike) to 1 (nothing in common).
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 2000
"""Random partitions in a test of categories."""

BINS = 10
"""Parts of equally many reference examples in which numbers are counted for the population stability index."""


@dataclass(frozen=True)
class Distance:
    """Between a reference and what was served."""

    value: float
    low: float
    high: float
    """Bounds that hold with at least the confidence asked for, whatever the distributions and sizes."""
    p: float
    """Of the hypothesis that both are samples of one distribution."""
    stability_index: float
    """Population stability index: the sum of (share - share) * log(share / share) over bins or categories."""


def of_numbers(reference: Sequence[float], served: Sequence[float], confidence: float = 0.95) -> Distance:
    """The Kolmogorov-Smirnov distance of two samples, each of at least one number.

    Bounds: each empirical distribution lies within sqrt(log(2 / a) / 2n) of its own, where a is half of what the confidence
    leaves (Dvoretzky, Kiefer and Wolfowitz 1956; Massart 1990). p: asymptotic; for numbers that occur several times, such as
    lengths, it is too large rather than too small.
    """
    from scipy.stats import ks_2samp

    one, other = np.asarray(reference, dtype=np.float64), np.asarray(served, dtype=np.float64)
    found = ks_2samp(one, other, method="asymp")
    value = float(found.statistic)
    around = sum(math.sqrt(math.log(4 / (1 - confidence)) / (2 * len(each))) for each in (one, other))
    edges = np.unique(np.quantile(one, np.arange(1, BINS) / BINS))
    counts = [np.bincount(np.searchsorted(edges, each), minlength=len(edges) + 1) for each in (one, other)]
    return Distance(
        value, max(0.0, value - around), min(1.0, value + around), float(found.pvalue), _index(*counts)
    )


def of_categories(
    reference: Sequence[Hashable], served: Sequence[Hashable], confidence: float = 0.95, seed: int = 0
) -> Distance:
    """The total variation distance of two samples, each of at least one category.

    Bounds: the shares of k categories among n lie within sqrt((k log 2 + log(1 / a)) / 2n) of their own (Weissman et al.
    2003). p: of a permutation test, the share of DRAWS random partitions with at least this distance, counting the sample
    itself.
    """
    counted = Counter(reference), Counter(served)
    names = list(counted[0] | counted[1])
    one, other = (np.array([counts[name] for name in names]) for counts in counted)
    n, m = len(reference), len(served)
    value = float(np.abs(one / n - other / m).sum() / 2)
    left = (1 - confidence) / 2
    around = sum(math.sqrt((len(names) * math.log(2) - math.log(left)) / (2 * each)) for each in (n, m))
    whole = one + other
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(whole, n, DRAWS, method="marginals")
    distances = np.abs(drawn / n - (whole - drawn) / m).sum(axis=1) / 2
    p = (1 + np.count_nonzero(distances >= value - 1e-12)) / (DRAWS + 1)
    return Distance(value, max(0.0, value - around), min(1.0, value + around), float(p), _index(one, other))


def _index(reference: np.ndarray, served: np.ndarray) -> float:
    """Of counts; half an example more in each bin keeps empty ones finite."""
    one, other = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (reference, served))
    return float(((other - one) * np.log(other / one)).sum())
