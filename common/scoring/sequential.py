"""When more seeds cannot change what a comparison finds: bounds that stay valid however often one looks.

Candidates are trained with the same seeds, one seed after another. After each seed, a candidate is decided once a bound
says that it would not be ahead of the leader by `smallest_difference` points or more if all planned seeds were run: its
further seeds are left out. What is bounded is what the full study would find on its own validation examples, not what
other examples would show: more seeds do not answer that (`over_examples`, and the paired tests of the report, do).

Method. Score of candidate k with seed s = mean of k + effect of s + residual, the residuals normal and independent: a block
design, in which what a seed does to all candidates alike (its sample of examples) cancels. The difference of two
candidates over n of S seeds lies around the one over all S with variance 2 v (1/n - 1/S), v that of the residuals: the
finite-population correction, as in confidence sequences for sampling without replacement (Waudby-Smith and Ramdas, 2020)
and in stochastic curtailment (Lan, Simon and Halperin, 1982). v is estimated from the candidates that are left and their seeds so far
together with a declared one, worth FREEDOM degrees of freedom, because the first seed says nothing of it (moderated variances;
Smyth, 2004); a candidate whose own residuals are larger gets a larger one. Quantiles are Student's t.

Error. With probability 1 - `error` the candidate that the full study would find best is not decided against one that it
would lead by `smallest_difference` or more. Looks: the bounds hold together at all of them, because look n of S - 1 gets
the share S / ((S - 1) n (n + 1)) of the error, which sums to 1 (a union bound, as in Howard et al., 2021). Candidates: any of
the K - 1 others may lead at any time, so each pair gets the same part, 1 / (K - 1): Bonferroni; Holm's larger steps would
need the leader to be known beforehand. The randomness is that of seeds: those left out are taken to be like those that
ran. It is an approximation as far as residuals are not normal or the declared sd is too small. A candidate whose every
run so far failed is out without a bound, and outside of this promise.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

FREEDOM = 8
"""Degrees of freedom that the declared sd is worth."""

SEED_SD = 2.0
"""Points; the sd of a score from seed to seed that is declared where nothing else is known."""


@dataclass(frozen=True)
class Rule:
    """When a candidate is decided."""

    planned: int
    """Seeds of each candidate in the full study."""
    smallest_difference: float = 1.0
    """Points; a candidate that is not ahead by as much is no better."""
    error: float = 0.05
    seed_sd: float = SEED_SD
    """Points; declared sd of a candidate's score from seed to seed, beyond what a seed does to all candidates alike."""


@dataclass(frozen=True)
class Decided:
    """A candidate whose further seeds can change nothing that matters."""

    candidate: str
    leader: str
    """The best candidate at that look."""
    seeds: int
    """After how many seeds that was."""
    difference: float
    """Points, candidate - leader, over these seeds; NaN if all runs of the candidate failed."""
    bound: float
    """Points that the candidate would be ahead at most with all planned seeds; NaN likewise."""
    error: float
    """One-sided error of this bound alone."""


@dataclass(frozen=True)
class Standing:
    """What is known of a comparison so far."""

    leader: str | None
    """None before the first look, or if nothing has a score."""
    decided: tuple[Decided, ...]
    """In the order in which they were decided."""
    wanted: tuple[tuple[str, int], ...]
    """(candidate, index of the seed) of the runs that the next look needs; none: the comparison is over."""


def standing(scores: Mapping[str, Sequence[float | None]], rule: Rule) -> Standing:
    """Go through a comparison look by look. The same scores give the same decisions, whenever they are asked for, and scores
    of runs that the comparison has no need of change nothing.

    scores: candidate → its validation score in percent with each planned seed; NaN if the run failed, None if there is
    none yet.
    """
    alive, decided, leader = list(scores), list[Decided](), None
    for n in range(1, rule.planned + 1):
        if wanted := [(name, n - 1) for name in alive if scores[name][n - 1] is None]:
            return Standing(leader, tuple(decided), tuple(wanted))
        table = np.array([scores[name][:n] for name in alive], dtype=np.float64)
        known = {name: row for name, row in zip(alive, table, strict=True) if np.isfinite(row).any()}
        if not known:
            continue
        leader = max(known, key=lambda name: float(np.nanmean(known[name])))
        if n == rule.planned:
            break
        decided += _look(alive, known, leader, n, len(scores), rule)
        out = {each.candidate for each in decided}
        alive = [name for name in alive if name not in out]
        if len(alive) == 1:
            break
    return Standing(leader, tuple(decided), ())


def share_of_error(look: int, rule: Rule, candidates: int) -> float:
    """The one-sided error of each bound at a look, from 1, between so many candidates."""
    of_looks = rule.planned / ((rule.planned - 1) * look * (look + 1))
    return rule.error * of_looks / max(1, candidates - 1)


def over_examples(differences: Sequence[float] | np.ndarray, error: float = 0.05) -> tuple[float, float]:
    """Interval (low, high) of the mean difference over other examples like these, in the units of `differences`.

    differences: (N,) the scores of one candidate minus those of another on the same examples, which came in random
    order. It holds at every number of examples at once, for large numbers: an asymptotic confidence sequence
    (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, 2024, theorem 2.2), tightest at N. It takes the seeds as they are.
    """
    values = np.asarray(differences, dtype=np.float64)
    n = len(values)
    if n < 2:
        raise ValueError(f"An interval over examples needs two differences or more, not {n}")
    squared = (-2 * math.log(error) + math.log(-2 * math.log(error)) + 1) / n
    grown = n * squared + 1
    half = values.std(ddof=1) * math.sqrt(2 * grown / (n**2 * squared) * math.log(math.sqrt(grown) / error))
    return float(values.mean() - half), float(values.mean() + half)


def _look(
    alive: Sequence[str], known: Mapping[str, np.ndarray], leader: str, n: int, candidates: int, rule: Rule
) -> list[Decided]:
    """The candidates that are decided at a look. known: candidate → its scores with the first n seeds."""
    from scipy.special import stdtrit

    error = share_of_error(n, rule, candidates)
    variances, freedom = _variances(known, rule.seed_sd)
    quantile = float(stdtrit(freedom, 1 - error))
    found = []
    for name in alive:
        if name == leader:
            continue
        if name not in known:
            found.append(Decided(name, leader, n, math.nan, math.nan, error))
            continue
        paired = known[name] - known[leader]
        paired = paired[np.isfinite(paired)]
        if not len(paired):
            continue
        left = 1 / len(paired) - 1 / rule.planned
        bound = float(paired.mean()) + quantile * math.sqrt((variances[name] + variances[leader]) * left)
        if bound < rule.smallest_difference:
            found.append(Decided(name, leader, n, float(paired.mean()), bound, error))
    return found


def _variances(known: Mapping[str, np.ndarray], seed_sd: float) -> tuple[dict[str, float], float]:
    """Candidate → variance of its residuals, and the degrees of freedom of what is pooled in it."""
    whole = [name for name, row in known.items() if np.isfinite(row).all()]
    squares, freedom = dict.fromkeys(known, 0.0), 0.0
    each = 0.0
    if len(whole) > 1 and (seeds := len(known[whole[0]])) > 1:
        table = np.array([known[name] for name in whole])
        left = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
        squares |= dict(zip(whole, (left**2).sum(axis=1).tolist(), strict=True))
        freedom = float((len(whole) - 1) * (seeds - 1))
        each = freedom / len(whole)
    pooled = (FREEDOM * seed_sd**2 + sum(squares.values())) / (FREEDOM + freedom)
    own = {name: (FREEDOM * pooled + squares[name]) / (FREEDOM + each) for name in known}
    return {name: max(pooled, value) for name, value in own.items()}, FREEDOM + freedom
