"""Models with any number of labels, and models of pairs, as they are served."""

import dataclasses
import shutil
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from common.models import bundles
from common.serving import classification, model_logging, multi_label
from common.tasks.batching import Collator
from common.tasks.classification import label_sets
from common.tasks.classification.texts import predict_logits
from common.tasks.table import TASKS
from common.tracking import runs
from tests.support import stores, trained
from tests.support.texts import make_texts

TASK = TASKS["multi-label-classification"]
EXAMPLES = [
    {"id": f"t{i}", "text": row["text"], "text_pair": row["text"][::-1], "label": [row["label"]]}
    for i, row in enumerate(make_texts(12))
]
ASKED = [TASK.request(e) for e in EXAMPLES]


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tiny):
    return trained.save_classifier(tmp_path_factory.mktemp("saved"), tiny, multi_label=True, pairs=True)


@pytest.fixture(scope="module")
def evaluated(saved):
    """What evaluation makes of EXAMPLES."""
    _, _, model, tokenizer, info = saved
    made = TASK.features(
        tokenizer, model.config, EXAMPLES, SimpleNamespace(max_length=info.settings["max_length"])
    )
    outputs = predict_logits(model, made, Collator(tokenizer.pad_token_id))
    return label_sets.predictions(outputs, made.names, info.settings["thresholds"])


@pytest.fixture(scope="module")
def served(tmp_path_factory, saved):
    with stores.in_force(tmp_path_factory.mktemp("serving")):
        with runs.start("multi-label", "run", {}) as run:
            uri = model_logging.log_model(run, saved[0], saved[1], ASKED[0], {"test_f1_samples": 50.0})
        yield mlflow.pyfunc.load_model(uri)


def test_labels_are_those_of_evaluation_by_the_stored_thresholds(served, evaluated):
    rows = served.predict(pd.DataFrame(ASKED)).to_dict("records")
    assert len({p.labels for p in evaluated}) > 1
    for row, p in zip(rows, evaluated, strict=True):
        assert set(row["labels"]) == {p.names[i] for i in p.labels}
        expected = sorted((p.probabilities[i] for i in p.labels), reverse=True)
        assert row["scores"] == pytest.approx(expected, abs=1e-4)


def test_a_request_can_set_its_own_threshold_and_see_the_other_labels(served):
    everything = served.predict(pd.DataFrame(ASKED), params={"threshold": 0.0})
    assert {len(labels) for labels in everything["labels"]} == {2}
    nothing = served.predict(pd.DataFrame(ASKED), params={"threshold": 1.0, "top_k": 2}).to_dict("records")
    for row, other in zip(nothing, everything.to_dict("records"), strict=True):
        assert row["labels"] == row["scores"] == []
        assert [entry["label"] for entry in row["alternatives"]] == other["labels"]
    for value in (-0.1, 1.5, float("nan")):
        with pytest.raises(MlflowException, match="choose 0 to 1"):
            served.predict(pd.DataFrame(ASKED), params={"threshold": value})


def test_both_texts_are_asked_for(served):
    assert served.metadata.get_input_schema().input_names() == ["text", "text_pair"]
    with pytest.raises(MlflowException, match="text_pair"):
        served.predict(pd.DataFrame([{"text": "one text alone"}]))
    model = served.unwrap_python_model()
    for text, reason in (("", "row 0: text_pair is empty"), (None, "text_pair must be a string, not null")):
        with pytest.raises(MlflowException, match=reason):
            model.predict(None, pd.DataFrame([{"text": "a", "text_pair": text}], dtype=object))
    assert multi_label.is_taken(ASKED[0]) and not multi_label.is_taken({"text": "a", "text_pair": " "})


@pytest.fixture(scope="module")
def whole(saved, tmp_path_factory):
    """The saved model with its base inside."""
    bundle = tmp_path_factory.mktemp("whole") / "bundle"
    shutil.copytree(saved[0], bundle)
    shutil.copytree(saved[1], bundle / "base")
    return bundle


@pytest.mark.long
def test_an_exported_model_gives_the_same_labels(whole, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs requirements-onnx.txt")
    from common.models.onnx import ONNX, export

    model, tokenizer, info = bundles.load_bundle(whole, merge=True)
    files = export(model, TASK.onnx_outputs, tmp_path / "onnx")
    made = tmp_path / "bundle"
    for part in (model.config, tokenizer):
        part.save_pretrained(made / "base")
    shutil.copy(files["fp32"], made / ONNX)
    bundles.write_info(made, dataclasses.replace(info, runtime="onnx-fp32"))
    own, exported = (multi_label.best_answers(each, ASKED) for each in (whole, made))
    assert [TASK.apart(a, b) for a, b in zip(own, exported, strict=True)] == [None] * len(ASKED)
    for a, b in zip(own, exported, strict=True):
        assert a["probabilities"] == pytest.approx(b["probabilities"], abs=1e-4)


def test_the_best_answers_hold_the_probability_of_every_label(whole, evaluated):
    for row, p in zip(multi_label.best_answers(whole, ASKED), evaluated, strict=True):
        given = [row["probabilities"][name] for name in p.names]
        assert np.allclose(given, p.probabilities, atol=1e-4)
        assert set(row["labels"]) == {p.names[i] for i in p.labels}


def test_a_model_of_single_texts_has_no_second_column():
    assert classification.SIGNATURE.inputs.input_names() == ["text"]
    assert classification.signature(ASKED[0]).inputs.input_names() == ["text", "text_pair"]
