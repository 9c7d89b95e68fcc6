"""Predictions + references → scores, exactly as the official SQuAD v1.1 and v2.0 evaluation scripts compute them.

A reference is any mapping with `id` and `answers` (`{"text": [...]}`, empty for an unanswerable question), so that
the examples of a SQuAD data set are references as they are. One with a field `language` is scored by the rules of that
language (`languages`), one without by SQuAD's own.
"""

import re
import string
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from .languages import Rules, rules_of

Version = Literal["v1.1", "v2.0"]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation, English articles and extra white space, in this order."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


SQUAD = Rules(normalize_answer)


def exact_match(
    prediction: str, golds: Sequence[str], version: Version = "v2.0", language: str | None = None
) -> float:
    """1.0 if the prediction equals one of the golds once both are normalized, else 0.0.

    v2.0: golds that normalize to nothing do not count, and without any gold the right prediction is the empty one.
    v1.1: ValueError without golds.
    """
    rules = rules_of(language) or SQUAD
    return _exact_match(rules.normalize(prediction), _normalized(golds, version, rules))


def f1(
    prediction: str, golds: Sequence[str], version: Version = "v2.0", language: str | None = None
) -> float:
    """The highest F1, 0 to 1, between the bags of words of the normalized prediction and of one gold.

    If either has no words, v2.0 gives 1 if both have none, v1.1 always 0. Golds as in `exact_match`.
    """
    rules = rules_of(language) or SQUAD
    return _f1(rules.normalize(prediction), _normalized(golds, version, rules), version, rules)


def score_examples(
    predictions: Mapping[str, str], references: Sequence[Mapping], version: Version = "v2.0"
) -> dict[str, np.ndarray]:
    """Arrays `id`, `exact_match`, `f1` (0 to 1) and `answerable` (bool), in the order of the references.

    A question without a prediction scores 0 in v1.1 and is left out in v2.0; predictions for other ids are ignored.
    """
    rows = list(_scores(predictions, references, version))
    ids, exact, overlap, answerable = zip(*rows, strict=True) if rows else ((), (), (), ())
    return {
        "id": np.array(ids, dtype=object),
        "exact_match": np.array(exact, dtype=np.float64),
        "f1": np.array(overlap, dtype=np.float64),
        "answerable": np.array(answerable, dtype=bool),
    }


def squad_scores(
    predictions: Mapping[str, str],
    references: Sequence[Mapping],
    version: Version,
    null_odds: Mapping[str, float] | None = None,
    null_threshold: float = 1.0,
) -> dict[str, float]:
    """The official scripts' figures, in percent, under their names, and `exact_match` for either version.

    v1.1: exact_match, f1. v2.0: exact, f1, total; HasAns_* and NoAns_*, the same for the questions with and without
    answers; given `null_odds` (id → the higher, the likelier it has no answer), predictions with odds above
    `null_threshold` count as "no answer", and best_exact, best_f1 and their _thresh are the results of the best
    threshold. Raises ValueError if no question has a prediction, or if odds are missing.
    """
    rows = list(_scores(predictions, references, version))
    if not rows:
        raise ValueError("No question has a prediction: are the predictions for other data?")
    if version == "v1.1":
        if null_odds is not None:
            raise ValueError("No-answer odds belong to SQuAD v2.0: v1.1 has no unanswerable questions")
        return {
            "exact_match": _percent([exact for _, exact, _, _ in rows]),
            "f1": _percent([overlap for _, _, overlap, _ in rows]),
        }

    has_answer = {reference["id"]: bool(reference["answers"]["text"]) for reference in references}
    raw_exact = {id_: matched for id_, matched, _, _ in rows}
    raw_f1 = {id_: shared for id_, _, shared, _ in rows}
    if null_odds is None:
        exact, overlap = raw_exact, raw_f1
    else:
        without = [id_ for id_ in raw_exact if id_ not in null_odds]
        if without:
            raise ValueError(
                f"{len(without)} questions have a prediction but no no-answer odds: {without[0]}"
            )
        exact = _declined(raw_exact, null_odds, has_answer, null_threshold)
        overlap = _declined(raw_f1, null_odds, has_answer, null_threshold)

    result = _summary(exact, overlap, exact)
    result["exact_match"] = result["exact"]
    for prefix, wanted in (("HasAns", True), ("NoAns", False)):
        ids = [id_ for id_ in exact if has_answer[id_] == wanted]
        if ids:
            result |= {f"{prefix}_{key}": value for key, value in _summary(exact, overlap, ids).items()}
    if null_odds is not None:
        for name, raw in (("best_exact", raw_exact), ("best_f1", raw_f1)):
            result[name], result[f"{name}_thresh"] = _best_threshold(predictions, raw, null_odds, has_answer)
    return result


def _normalized(golds: Sequence[str], version: Version, rules: Rules) -> list[str]:
    normalized = [rules.normalize(gold) for gold in golds]
    if version == "v2.0":
        return [gold for gold in normalized if gold] or [""]
    if not normalized:
        raise ValueError("A question without reference answers cannot be scored by the rules of SQuAD v1.1")
    return normalized


def _exact_match(prediction: str, golds: Sequence[str]) -> float:
    return float(prediction in golds)


def _f1(prediction: str, golds: Sequence[str], version: Version, rules: Rules) -> float:
    tokens = rules.tokens(prediction)
    return max(_overlap(tokens, rules.tokens(gold), version, rules) for gold in golds)


def _overlap(predicted: list[str], gold: list[str], version: Version, rules: Rules) -> float:
    if version == "v2.0" and not (predicted and gold):
        return float(predicted == gold)
    same = rules.shared(predicted, gold)
    if same == 0:
        return 0.0
    # The official order of operations, so that not even the last bit differs.
    precision = 1.0 * same / len(predicted)
    recall = 1.0 * same / len(gold)
    return (2 * precision * recall) / (precision + recall)


def _scores(
    predictions: Mapping[str, str], references: Sequence[Mapping], version: Version
) -> Iterator[tuple[str, float, float, bool]]:
    """(id, exact match, F1, answerable) of every question that counts."""
    if version not in ("v1.1", "v2.0"):
        raise ValueError(f"SQuAD has the versions v1.1 and v2.0, not {version!r}")
    for reference in references:
        id_, golds = reference["id"], reference["answers"]["text"]
        if id_ in predictions:
            rules = rules_of(reference.get("language")) or SQUAD
            normalized = _normalized(golds, version, rules)
            text = rules.normalize(predictions[id_])
            yield id_, _exact_match(text, normalized), _f1(text, normalized, version, rules), bool(golds)
        elif version == "v1.1":
            yield id_, 0.0, 0.0, bool(golds)


def _percent(scores: Sequence[float]) -> float:
    return 100.0 * sum(scores) / len(scores)


def _summary(
    exact: Mapping[str, float], overlap: Mapping[str, float], ids: Collection[str]
) -> dict[str, float]:
    return {
        "exact": _percent([exact[id_] for id_ in ids]),
        "f1": _percent([overlap[id_] for id_ in ids]),
        "total": len(ids),
    }


def _declined(
    scores: Mapping[str, float],
    null_odds: Mapping[str, float],
    has_answer: Mapping[str, bool],
    threshold: float,
) -> dict[str, float]:
    """The scores, where questions with odds above the threshold are scored as if the answer were "no answer"."""
    return {
        id_: float(not has_answer[id_]) if null_odds[id_] > threshold else score
        for id_, score in scores.items()
    }


def _best_threshold(
    predictions: Mapping[str, str],
    scores: Mapping[str, float],
    null_odds: Mapping[str, float],
    has_answer: Mapping[str, bool],
) -> tuple[float, float]:
    """Best score in percent and its threshold: at first all answers are "no answer", then questions are answered one by one
    in the order of their odds."""
    total: float
    best: float
    total = best = sum(not has_answer[id_] for id_ in scores)
    threshold = 0.0
    for id_ in sorted(null_odds, key=lambda id_: null_odds[id_]):
        if id_ not in scores:
            continue
        if has_answer[id_]:
            total += scores[id_]
        elif predictions[id_]:
            total -= 1
        if total > best:
            best, threshold = total, null_odds[id_]
    return 100.0 * best / len(scores), threshold
