"""Whether a candidate may replace the champion, judged from scores, costs and checks alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..bounds import bounded, check_bounds
from ..scoring.bootstrap import paired_bootstrap

CHAMPION, CHALLENGER = "champion", "challenger"


@dataclass(frozen=True)
class Rules:
    """The rules of promotion."""

    confidence: float = bounded(0.95, above=0, below=1)
    """Confidence of the paired bootstrap interval by which a candidate must be better."""
    tolerance: float = bounded(1.0, minimum=0)
    """Points by which a cheaper candidate may be worse, at that confidence."""
    cheaper_latency: float | None = bounded(None, above=0, below=1)
    """Share of the incumbent's latency that a candidate must save to count as cheaper; None: latency does not count."""
    cheaper_size: float | None = bounded(None, above=0, below=1)
    """Share of the incumbent's size on disk that a candidate must save to count as cheaper; None: size does not count."""
    max_latency_ms: float | None = bounded(None, minimum=0)
    """Bound for a champion's median latency of single requests, in ms; None: no bound."""
    max_slice_loss: float = bounded(5.0, minimum=0)
    """Most points that a slice may lose against the incumbent, at that confidence."""
    min_slice: int = bounded(30, minimum=1)
    """Least number of examples in a slice that is judged by itself."""


def check(rules: Rules) -> None:
    """UserError names the first field whose value is out of bounds."""
    check_bounds(rules)


@dataclass(frozen=True)
class Measured:
    """A model's results on the test examples. scores: one for each example, 0 to 1; latency in ms, size in MiB."""

    scores: np.ndarray
    latency_ms: float
    size_mib: float


@dataclass(frozen=True)
class Verdict:
    """`alias` with every reason that led to it, in the order of the checks."""

    alias: str
    reasons: tuple[str, ...]
    figures: Mapping[str, float] = field(default_factory=dict)


def judge(
    candidate: Measured,
    incumbent: Measured | None,
    slices: Mapping[tuple[str, str], np.ndarray],
    failed_checks: Sequence[str],
    rules: Rules,
) -> Verdict:
    """Champion or challenger.

    slices: (dimension, slice) → indices of test examples. failed_checks: a sentence for each failed check of the candidate
    by itself. A candidate becomes champion if it fails no check and there is no incumbent, or it is better than the
    incumbent on the same examples, or it is cheaper and not worse.
    """
    against = list(failed_checks)
    if rules.max_latency_ms is not None and candidate.latency_ms > rules.max_latency_ms:
        against.append(
            f"its median latency is {candidate.latency_ms:.0f} ms, over {rules.max_latency_ms:.0f} ms"
        )
    if incumbent is None:
        if against:
            return Verdict(CHALLENGER, tuple(against))
        return Verdict(CHAMPION, ("there is no champion to compare with",))
    found = compared(candidate.scores, incumbent.scores, rules)
    figures = {f"gate_{name}": value for name, value in found.items()}
    against += _collapsed(candidate.scores, incumbent.scores, slices, rules)
    interval = f"{found['difference']:+.1f} points, {rules.confidence:.0%} interval {found['low']:+.1f} to {found['high']:+.1f}"
    if found["low"] > 0:
        quality = f"better than the champion on the same {len(candidate.scores)} test examples: {interval}"
    elif found["low"] > -rules.tolerance and (savings := _savings(candidate, incumbent, rules)):
        quality = (
            f"not worse than the champion by more than {rules.tolerance:g} points ({interval}), and {savings}"
        )
    else:
        against.append(f"not shown to be better than the champion: {interval}")
        quality = ""
    if against:
        return Verdict(CHALLENGER, tuple(against), figures)
    return Verdict(CHAMPION, (quality,), figures)


def compared(a: np.ndarray, b: np.ndarray, rules: Rules) -> dict[str, float]:
    """`difference`, `low` and `high` of `bootstrap.paired_bootstrap` in points, and its `p`."""
    found = paired_bootstrap(a, b, confidence=rules.confidence)
    return {name: found[name] if name == "p" else 100 * found[name] for name in found}


def _collapsed(
    a: np.ndarray, b: np.ndarray, slices: Mapping[tuple[str, str], np.ndarray], rules: Rules
) -> list[str]:
    lost = []
    for (dimension, name), indices in slices.items():
        if len(indices) < rules.min_slice:
            continue
        found = compared(a[indices], b[indices], rules)
        # The whole interval counts, not the estimate alone: with a dozen slices one is always unlucky.
        if found["high"] < -rules.max_slice_loss:
            lost.append(
                f"it collapses on {dimension} = {name} ({len(indices)} examples): {found['difference']:+.1f} points, "
                f"at best {found['high']:+.1f}"
            )
    return lost


def _savings(candidate: Measured, incumbent: Measured, rules: Rules) -> str:
    saved = []
    for name, share, now, before, unit in (
        ("latency", rules.cheaper_latency, candidate.latency_ms, incumbent.latency_ms, "ms"),
        ("size", rules.cheaper_size, candidate.size_mib, incumbent.size_mib, "MiB"),
    ):
        if share is not None and now <= (1 - share) * before:
            saved.append(f"its {name} is {now:.4g} {unit} instead of {before:.4g}")
    return " and ".join(saved)
