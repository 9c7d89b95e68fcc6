"""Models that earlier versions of the suite stored load and answer with their own code."""

import json
import shutil
import sys

import mlflow
import pandas as pd
import pytest

from common.api import load
from common.paths import ROOT

KEPT = ROOT / "tests" / "stored_models"


@pytest.mark.parametrize("kind", ["extractive_qa", "classification"])
def test_a_model_of_an_earlier_version_answers_as_it_did(kind, tmp_path):
    shutil.copytree(KEPT / kind / "model", tmp_path / "model")
    kept = json.loads((KEPT / kind / "answers.json").read_text(encoding="utf-8"))
    (code,) = (tmp_path / "model" / "code").glob("suite_*")
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    # Its modules come from its own folder.
    assert sys.modules[code.name].__path__ == [str(code)]
    answers = model.predict(pd.DataFrame([row["asked"] for row in kept])).to_dict("records")
    assert len(answers) == len(kept) > 3
    for answer, row in zip(answers, kept, strict=True):
        expected = row["answered"]
        assert answer.keys() == expected.keys()
        assert answer.pop("score") == pytest.approx(expected.pop("score"), abs=1e-4)
        assert answer == expected


def test_the_weights_of_an_earlier_classifier_answer_by_this_versions_code():
    kept = json.loads((KEPT / "classification" / "answers.json").read_text(encoding="utf-8"))
    model = load(KEPT / "classification" / "model")
    assert model.asked == ("text",)
    answers = model.predict([row["asked"] for row in kept]).to_dict("records")
    for answer, row in zip(answers, kept, strict=True):
        assert answer["label"] == row["answered"]["label"]
        assert answer["score"] == pytest.approx(row["answered"]["score"], abs=1e-4)
