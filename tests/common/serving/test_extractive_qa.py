"""Calibrated scores and abstention of served models; what earlier models stored, they answer as they did."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from common.models import bundles
from common.serving import classification, extractive_qa
from common.serving.requests import Refusal
from tests.support import trained
from tests.support.questions import EXAMPLES

ASKED = [{name: e[name] for name in ("question", "context")} for e in EXAMPLES]
TEXTS = [{"text": e["text"]} for e in trained.make_texts(12)]


def opened(served, saved, **settings):
    """The pyfunc of a saved model with further settings."""
    bundle, base, *_, info = saved
    bundles.write_info(bundle, replace(info, settings={**info.settings, **settings}))
    model = served.MODEL()
    artifacts = {"bundle": str(bundle), **({"base": str(base)} if base else {})}
    model.load_context(SimpleNamespace(artifacts=artifacts, model_config=None))
    return lambda rows, **params: model.predict(None, pd.DataFrame(rows), params).to_dict("records")


@pytest.fixture(scope="module")
def qa(tmp_path_factory, tiny):
    return trained.save(tmp_path_factory.mktemp("qa"), tiny, technique="standard")


@pytest.fixture(scope="module")
def labels(tmp_path_factory, tiny):
    saved = trained.save_classifier(tmp_path_factory.mktemp("labels"), tiny)
    bundle, base, *rest = saved
    base.rename(bundle / "base")
    return (bundle, None, *rest)


def held(*thresholds):
    return {"confidence": 0.95, "examples": 100, "thresholds": list(thresholds)}


@pytest.mark.parametrize(
    ("served", "saved", "rows"), [(extractive_qa, "qa", ASKED), (classification, "labels", TEXTS)]
)
def test_a_temperature_changes_scores_and_no_answer(served, saved, rows, request):
    saved = request.getfixturevalue(saved)
    before = opened(served, saved)(rows, top_k=20)
    after = opened(served, saved, temperature=2.0)(rows, top_k=20, raw_scores=True)
    cold = opened(served, saved, temperature=0.5)(rows, top_k=20)
    changed = 0
    for old, new, sharp in zip(before, after, cold, strict=True):
        for one, other in zip(*([r, *r["alternatives"]] for r in (old, new)), strict=True):
            scores = ("score", "raw_score", "alternatives")
            assert {k: v for k, v in one.items() if k not in scores} == {
                k: v for k, v in other.items() if k not in scores
            }
            assert one["score"] == other["raw_score"]
            changed += abs(one["score"] - other["score"]) > 1e-3
        # The softmax of halved logits, by hand.
        raw = np.array([r["raw_score"] for r in (new, *new["alternatives"])])
        calibrated = [r["score"] for r in (new, *new["alternatives"])]
        if len(raw) < 20:
            assert calibrated == pytest.approx(np.sqrt(raw) / np.sqrt(raw).sum(), abs=1e-6)
            assert sharp["score"] == pytest.approx(raw[0] ** 2 / (raw**2).sum(), abs=1e-6)
    assert changed > len(rows)


def test_rows_have_the_columns_that_they_always_had(qa, labels):
    assert set(opened(extractive_qa, qa, temperature=1.5)(ASKED[:1])[0]) == {
        "answer",
        "score",
        "start",
        "end",
    }
    assert set(opened(classification, labels, temperature=1.5)(TEXTS[:1])[0]) == {"label", "score"}


@pytest.mark.parametrize(
    ("served", "saved", "rows", "nothing"),
    [
        (extractive_qa, "qa", ASKED, {"answer": "", "start": -1, "end": -1}),
        (classification, "labels", TEXTS, {"label": ""}),
    ],
)
def test_abstention_goes_by_the_raw_score(served, saved, rows, nothing, request):
    saved = request.getfixturevalue(saved)
    raw = sorted(r["raw_score"] for r in opened(served, saved)(rows, raw_scores=True))
    middle = raw[len(raw) // 2]
    ask = opened(served, saved, temperature=3.0, abstention=held([0.05, None], [0.1, middle]))
    plain = ask(rows)
    found = ask(rows, max_error=0.1, raw_scores=True)
    assert 0 < sum(row["abstained"] for row in found) < len(rows)
    for row, without in zip(found, plain, strict=True):
        assert row["abstained"] == (row["raw_score"] < middle) and row["score"] == without["score"]
        expected = nothing if row["abstained"] else {name: without[name] for name in nothing}
        assert {name: row[name] for name in nothing} == expected
    held_back = next(row for row in ask(rows, max_error=0.1, top_k=3) if row["abstained"])
    assert held_back["alternatives"] == []
    with pytest.raises(
        Refusal, match=r"max_error is 0.05, which this model cannot promise; it can promise 0.1"
    ):
        ask(rows, max_error=0.05)
    with pytest.raises(Refusal, match="cannot promise; it can promise none"):
        opened(served, saved)(rows, max_error=0.1)


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"null_threshold": 1.0}, "promised for the model's own null_threshold"),
        ({"max_answer_length": 5}, "promised for the model's own max_answer_length"),
        ({"top_k": 50}, "top_k is 50; with max_error it is 20 at most"),
    ],
)
def test_a_promise_holds_for_the_models_own_settings(qa, params, reason):
    ask = opened(extractive_qa, qa, abstention=held([0.1, 0.2]))
    with pytest.raises(Refusal, match=reason):
        ask(ASKED[:1], max_error=0.1, **params)
    assert ask(ASKED[:1], **params)
