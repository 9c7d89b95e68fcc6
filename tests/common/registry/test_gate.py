import numpy as np
import pytest

from common.registry.gate import Measured, Rules, judge

RANDOM = np.random.default_rng(0)
BASE = RANDOM.random(400) < 0.5
SLICES = {("question type", "who"): np.arange(60), ("question type", "what"): np.arange(60, 400)}


def measured(scores, latency=100.0, size=90.0):
    return Measured(np.asarray(scores, dtype=float), latency, size)


def better(by: int, start: int = 60):
    """BASE with `by` more right answers from `start` on."""
    scores = BASE.copy()
    scores[start + np.flatnonzero(~scores[start:])[:by]] = True
    return scores


def worse(by: int, start: int = 0):
    scores = BASE.copy()
    scores[start + np.flatnonzero(scores[start:])[:by]] = False
    return scores


def test_the_first_candidate_is_champion_unless_a_check_fails():
    assert judge(measured(BASE), None, SLICES, [], Rules()).alias == "champion"
    verdict = judge(measured(BASE), None, SLICES, ["it does not load"], Rules())
    assert verdict.alias == "challenger" and verdict.reasons == ("it does not load",)


def test_only_what_is_better_beyond_chance_is_promoted():
    assert judge(measured(better(30)), measured(BASE), SLICES, [], Rules()).alias == "champion"
    for scores in (BASE, better(2), worse(30)):
        verdict = judge(measured(scores), measured(BASE), SLICES, [], Rules())
        assert verdict.alias == "challenger" and "not shown to be better" in verdict.reasons[-1]
    # What five more right answers are worth depends on how sure one wants to be.
    assert judge(measured(better(4)), measured(BASE), SLICES, [], Rules(confidence=0.8)).alias == "champion"
    assert (
        judge(measured(better(4)), measured(BASE), SLICES, [], Rules(confidence=0.999)).alias == "challenger"
    )


@pytest.mark.parametrize(("name", "kwargs"), [("latency", {"latency": 60.0}), ("size", {"size": 40.0})])
def test_a_cheaper_one_need_only_not_be_worse(name, kwargs):
    rules = Rules(**{f"cheaper_{name}": 0.3})
    assert judge(measured(BASE, **kwargs), measured(BASE), SLICES, [], rules).alias == "champion"
    assert judge(measured(BASE, **kwargs), measured(BASE), SLICES, [], Rules()).alias == "challenger"
    assert judge(measured(BASE), measured(BASE), SLICES, [], rules).alias == "challenger"
    # Worse by more than the tolerance.
    assert judge(measured(worse(20), **kwargs), measured(BASE), SLICES, [], rules).alias == "challenger"


def test_a_slice_that_collapses_stops_a_better_candidate():
    scores = better(60)
    scores[:60] = False
    verdict = judge(measured(scores), measured(BASE), SLICES, [], Rules(max_slice_loss=5.0))
    assert verdict.alias == "challenger" and "question type = who (60 examples)" in verdict.reasons[0]
    small = {("question type", "who"): np.arange(20)}
    scores = better(60)
    scores[:20] = False
    assert judge(measured(scores), measured(BASE), small, [], Rules()).alias == "champion"


def test_latency_has_a_bound_of_its_own():
    verdict = judge(
        measured(better(30), latency=500.0), measured(BASE), SLICES, [], Rules(max_latency_ms=200)
    )
    assert verdict.alias == "challenger" and "500 ms, over 200 ms" in verdict.reasons[0]


def test_the_error_rate_of_promotion_is_what_the_confidence_says():
    """Of candidates that are as good as the champion, about 2.5% are promoted by luck."""
    random, promoted = np.random.default_rng(1), 0
    for _ in range(200):
        a, b = random.random((2, 300)) < 0.5
        promoted += judge(measured(a), measured(b), {}, [], Rules()).alias == "champion"
    assert promoted <= 12
