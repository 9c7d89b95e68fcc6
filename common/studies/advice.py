"""From the scores of a halving to advice: which technique, how sure that is, and what more data would bring.

Only scores and costs go in; sentences and JSON come out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from ..counts import count_of
from ..durations import clock
from ..scoring.learning_curve import per_doubling
from ..scoring.names import LABELS
from ..scoring.power import ALPHA, examples_to_decide
from ..scoring.uncertainty import holm, paired_difference, shown_p

Verdict = Literal["decided", "too small to count", "not decided", "alone"]


@dataclass(frozen=True)
class Tried:
    """A technique in one rung, at its best learning rate there."""

    technique: str
    """As the advice calls it."""
    learning_rate: float
    examples: int
    """It was trained on."""
    score: float
    """Of validation, in percent."""
    scores: Mapping[str, float]
    """Validation example → its score, 0 to 1."""


@dataclass(frozen=True)
class Cost:
    """What a technique asks for on this machine; None for what was not measured."""

    latency_ms: float | None = None
    """Median of single requests to its stored model."""
    stored_mib: float | None = None
    """The trained weights alone: an adapter, or the whole model."""
    whole_mib: float | None = None
    """What is served: the adapter merged into its base, or beside it where that is not possible."""
    trained_parameters: float | None = None
    training_seconds: float | None = None
    """Of its last rung."""


@dataclass(frozen=True)
class Comparison:
    """The best technique against another one, on the same validation examples after training on the same number."""

    other: str
    examples: int
    """Both were trained on."""
    questions: int
    """Both were compared on."""
    difference: float
    """Points by which the best one is ahead."""
    low: float
    high: float
    p: float
    p_holm: float
    to_decide: float | None
    """Validation examples that would show such a difference in four of five cases, at a level that allows for all
    comparisons; None: no number would."""


@dataclass(frozen=True)
class Advice:
    """What to take, and why."""

    best: str
    """By validation score, in the last rung that it reached."""
    take: str
    verdict: Verdict
    comparisons: list[Comparison]
    """With every other technique that was not excluded, the strongest first."""
    rungs: list[list[Tried]]
    """The techniques of each rung, the best first."""
    overall: dict[str, float] | None
    """Points per doubling of the data for the technique to take, over all its rungs: `slope`, `low`, `high`."""
    latest: dict[str, float] | None
    """The same between its last two rungs, where there are more than two."""

    def tried(self, technique: str) -> Tried:
        """A technique in the last rung that it reached."""
        return next(each for rung in reversed(self.rungs) for each in rung if each.technique == technique)


def advise(rungs: Sequence[Sequence[Tried]], costs: Mapping[str, Cost], smallest: float = 1.0) -> Advice:
    """Choose among the techniques of the last rung.

    rungs: of each rung the techniques with their scores; the first has all that are not excluded. costs: by technique.
    smallest: the smallest difference in points that counts. The best is taken. If it is ahead of others of the last rung by
    less than `smallest` at most (the upper end of a 95% interval), the one of these with the smallest stored weights is taken.
    """
    ordered = [sorted(rung, key=lambda tried: -tried.score) for rung in rungs]
    best = ordered[-1][0]
    comparisons = _comparisons(best.technique, ordered)
    verdict: Verdict = "alone"
    take = best.technique
    finalists = {tried.technique for tried in ordered[-1]}
    if comparisons:
        second = comparisons[0]
        close = [each.other for each in comparisons if each.other in finalists and each.high < smallest]
        if second.high < smallest and close:
            verdict = "too small to count"
            take = min([best.technique, *close], key=lambda name: _weight(costs, name))
        else:
            verdict = "decided" if second.p_holm < ALPHA else "not decided"
    overall, latest = _growth(take, ordered)
    return Advice(best.technique, take, verdict, comparisons, ordered, overall, latest)


def _weight(costs: Mapping[str, Cost], technique: str) -> float:
    stored = costs.get(technique, Cost()).stored_mib
    return float("inf") if stored is None else stored


def _comparisons(best: str, rungs: Sequence[Sequence[Tried]]) -> list[Comparison]:
    """The best technique against each other one in the last rung that both reached."""
    pairs: dict[str, tuple[Tried, Tried]] = {}
    for rung in rungs:
        mine = next((tried for tried in rung if tried.technique == best), None)
        for tried in rung:
            if mine is not None and tried.technique != best:
                pairs[tried.technique] = mine, tried
    found = []
    # Holm's level for the smallest p: fewer examples may not show a difference that is corrected like these.
    alpha = ALPHA / max(1, len(pairs))
    for mine, other in pairs.values():
        a, b = _paired(mine, other)
        if not len(a):
            continue
        needed = examples_to_decide(a - b, alpha=alpha) if len(a) > 1 else float("inf")
        found.append((other, len(a), paired_difference(a, b), needed if np.isfinite(needed) else None))
    corrected = holm([each["p"] for _, _, each, _ in found])
    compared = [
        Comparison(other.technique, other.examples, count, **each, p_holm=float(p), to_decide=needed)
        for (other, count, each, needed), p in zip(found, corrected, strict=True)
    ]
    # The furthest rung counts most: there the others were still in the race.
    return sorted(compared, key=lambda each: (-each.examples, each.difference))


def _paired(one: Tried, other: Tried) -> tuple[np.ndarray, np.ndarray]:
    """Scores in percent on the examples that both have, in one order."""
    shared = [name for name in one.scores if name in other.scores]
    a, b = (100 * np.array([each.scores[name] for name in shared]) for each in (one, other))
    return a, b


def _growth(
    technique: str, rungs: Sequence[Sequence[Tried]]
) -> tuple[dict[str, float] | None, dict[str, float] | None]:
    mine = [tried for rung in rungs for tried in rung if tried.technique == technique]
    if len({tried.examples for tried in mine}) < 2:
        return None, None
    shared = [name for name in mine[0].scores if all(name in tried.scores for tried in mine)]
    scores = [100 * np.array([tried.scores[name] for name in shared]) for tried in mine]
    sizes = [tried.examples for tried in mine]
    latest = per_doubling(sizes[-2:], scores[-2:]) if len(mine) > 2 else None
    return per_doubling(sizes, scores), latest


@dataclass(frozen=True)
class Setting:
    """What the sentences need to know beside the advice."""

    metric: str
    unit: str
    """What an example is, in the plural."""
    smallest: float
    total: int
    """Training examples that there are."""
    command: str
    """The command line that trains the technique to take on all of them."""
    excluded: Mapping[str, str]
    """Technique → why it was excluded."""
    notes: Sequence[str] = ()


def sentences(advice: Advice, costs: Mapping[str, Cost], setting: Setting) -> list[str]:
    """The advice in plain sentences, a paragraph each."""
    parts = [_take(advice, setting), f"Train it: {setting.command}", _sure(advice, setting)]
    if cost := _cost(advice.take, costs):
        parts.append(cost)
    parts.append(_more_data(advice, setting))
    if setting.excluded:
        reasons = "; ".join(f"{name} ({reason})" for name, reason in setting.excluded.items())
        parts.append(f"Excluded: {reasons}.")
    return [*parts, *setting.notes]


def _take(advice: Advice, setting: Setting) -> str:
    tried, label = advice.tried(advice.take), LABELS.get(setting.metric, setting.metric)
    return (
        f"Take {advice.take}, learning rate {tried.learning_rate:g}: validation {label} {tried.score:.1f} after "
        f"{tried.examples:,} of {setting.total:,} training {setting.unit}."
    )


def _sure(advice: Advice, setting: Setting) -> str:
    if not advice.comparisons:
        return "How sure: nothing was compared, because no other technique was left."
    rival = next((each for each in advice.comparisons if each.other == advice.take), advice.comparisons[0])
    gap = f"{rival.difference:+.1f} points [{rival.low:+.1f}, {rival.high:+.1f}]"
    on = (
        f"on the same {count_of(rival.questions, f'validation {setting.unit}')} (p {shown_p(rival.p_holm)} after Holm's correction for "
        f"{count_of(len(advice.comparisons), 'comparisons')})"
    )
    if advice.verdict == "decided":
        text = f"How sure: decided. {advice.best} is ahead of {rival.other} by {gap} {on}."
    elif advice.verdict == "too small to count" and advice.take != advice.best:
        text = (
            f"How sure: {advice.best} scores higher by {gap} {on}, which is less than the {setting.smallest:g} points that "
            f"count; {advice.take} stores less."
        )
    elif advice.verdict == "too small to count":
        text = (
            f"How sure: {advice.best} and {rival.other} differ by {gap} {on}, less than the {setting.smallest:g} points "
            f"that count; {advice.best} stores no more."
        )
    else:
        text = f"How sure: not decided. {advice.best} is ahead of {rival.other} by {gap} {on}; {rival.other} may be as good."
        if rival.to_decide is not None and rival.difference > 0:
            text += f" About {_round(rival.to_decide):,} validation {setting.unit} would decide such a difference."
        else:
            text += " More validation data would not decide it soon."
    return (
        text
        + " One seed each: another seed may move a score. The rate and the epoch were chosen on the same validation "
        f"{setting.unit}, so scores on new {setting.unit} will be somewhat lower."
    )


def _cost(technique: str, costs: Mapping[str, Cost]) -> str:
    cost = costs.get(technique)
    if cost is None:
        return ""
    parts = []
    if cost.latency_ms is not None:
        parts.append(f"one request takes {cost.latency_ms:.1f} ms (median on this machine)")
    if cost.stored_mib is not None:
        parts.append(f"its trained weights take {cost.stored_mib:.3g} MiB")
    if cost.whole_mib is not None:
        parts.append(f"the whole model that is served {cost.whole_mib:.3g} MiB")
    return f"It costs: {', '.join(parts)}." if parts else ""


def _more_data(advice: Advice, setting: Setting) -> str:
    if advice.overall is None:
        return "What more data would bring was not measured: there was one amount of data only."
    mine = [tried for rung in advice.rungs for tried in rung if tried.technique == advice.take]
    text = (
        f"More data: from {mine[0].examples:,} to {mine[-1].examples:,} training {setting.unit} {advice.take} gained "
        f"{_slope(advice.overall)} points for each doubling"
    )
    end = advice.latest or advice.overall
    if advice.latest:
        text += f", and {_slope(advice.latest)} between the last two amounts"
    text += ". "
    if end["low"] <= 0:
        return text + "It is not shown that more data of this kind would raise the score."
    reach = "twice as many" if mine[-1].examples >= setting.total else "twice as many as it was trained on"
    return text + (
        f"So {reach} may bring {end['low']:.1f} to {end['high']:.1f} points. That lies outside of what was measured: "
        "curves flatten, so expect the lower end, and nothing can be said beyond one doubling."
    )


def _slope(gain: Mapping[str, float]) -> str:
    return f"{gain['slope']:+.1f} [{gain['low']:+.1f}, {gain['high']:+.1f}]"


def _round(count: float) -> int:
    """Two digits: an estimate is not more exact."""
    return int(float(f"{count:.2g}"))


def as_json(advice: Advice, costs: Mapping[str, Cost], setting: Setting) -> dict[str, Any]:
    """The advice with everything that it follows from, but the single scores."""
    rungs = [
        [{name: value for name, value in asdict(tried).items() if name != "scores"} for tried in rung]
        for rung in advice.rungs
    ]
    return {
        "take": advice.take,
        "learning_rate": advice.tried(advice.take).learning_rate,
        "command": setting.command,
        "best": advice.best,
        "verdict": advice.verdict,
        "smallest_difference": setting.smallest,
        "metric": setting.metric,
        "training_examples": setting.total,
        "comparisons": [asdict(each) for each in advice.comparisons],
        "points_per_doubling": {"all_rungs": advice.overall, "last_two_rungs": advice.latest},
        "costs": {name: asdict(cost) for name, cost in costs.items()},
        "excluded": dict(setting.excluded),
        "rungs": rungs,
        "sentences": sentences(advice, costs, setting),
    }


def rung_lines(rungs: Sequence[Sequence[Tried]], seconds: Sequence[float]) -> list[str]:
    """A line for each rung. seconds: its training as a whole."""
    return [
        f"{rung[0].examples:,} examples, {clock(spent)}: "
        + ", ".join(f"{tried.technique} {tried.score:.1f}" for tried in rung)
        for rung, spent in zip(rungs, seconds, strict=True)
    ]


def too_costly(cost: Cost, max_latency_ms: float | None, max_size_mb: float | None) -> str:
    """Why a technique is beyond the bounds, with what was measured; "" if it is not."""
    reasons = []
    if max_latency_ms is not None and not (cost.latency_ms is not None and cost.latency_ms <= max_latency_ms):
        took = "does not load" if cost.latency_ms is None else f"takes {cost.latency_ms:.1f} ms"
        reasons.append(f"one request {took}, the bound is {max_latency_ms:g} ms")
    if max_size_mb is not None and cost.stored_mib is not None and cost.stored_mib > max_size_mb:
        whole = "" if cost.whole_mib is None else f" ({cost.whole_mib:.3g} MiB as one model)"
        reasons.append(f"stores {cost.stored_mib:.3g} MiB{whole}, the bound is {max_size_mb:g} MiB")
    return "; ".join(reasons)


def edge_notes(take: Tried, rates: Sequence[float]) -> list[str]:
    """A sentence if the learning rate of the technique to take lies at an end of those that were tried, else none."""
    if len(rates) < 2 or take.learning_rate not in (min(rates), max(rates)):
        return []
    end, beyond = ("lowest", "lower") if take.learning_rate == min(rates) else ("highest", "higher")
    return [
        f"The learning rate {take.learning_rate:g} is the {end} that was tried for {take.technique}: a {beyond} one may be "
        "better still."
    ]
