"""How a score rises with the number of training examples: points for each doubling, with an interval."""

from collections.abc import Sequence

import numpy as np

from .uncertainty import Spread, interval


def per_doubling(
    sizes: Sequence[float], scores: Sequence[np.ndarray], spread: Spread | None = None
) -> dict[str, float] | None:
    """`slope` of the least-squares line of the mean score over log2 of the size, with its 95% interval `low`, `high`; None for
    fewer than two sizes.

    sizes: number of training examples of each model. scores: (seeds, examples) of each, the same seeds and examples.
    The slope is a weighted sum of the scores, so that each example and seed has a slope of its own, and `uncertainty.interval`
    of these is an interval over other examples and, if there are several seeds, other seeds. A line in log2 of the size is
    a description of the sizes that were measured: curves flatten.
    """
    x = np.log2(np.asarray(sizes, dtype=float))
    if len(set(sizes)) < 2 or not np.isfinite(x).all():
        return None
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    slopes = np.tensordot(weights, np.stack([np.atleast_2d(each) for each in scores]), axes=1)
    # A seed moves each size's score by itself.
    scaled = None if spread is None else spread._replace(variance=spread.variance * float((weights**2).sum()))
    low, high = interval(slopes, scaled)
    return {"slope": float(slopes.mean()), "low": low, "high": high}
