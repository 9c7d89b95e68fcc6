"""A registered version as ONNX: it answers as the version does, is served by MLflow, and is not exported twice."""

import json
from pathlib import Path

import mlflow
import pandas as pd
import pytest

pytest.importorskip("onnxruntime", reason="needs requirements-onnx.txt")

from mlflow.exceptions import MlflowException

from common.data import prepared
from common.errors import UserError
from common.inference import models, predicting
from common.models import bundles
from common.registry import onnx_versions, recertifying, register
from common.tasks.table import TASKS
from common.training import planning
from tests.support import stores, tampering, trained
from tests.support.questions import EXAMPLES

QA = TASKS["extractive-qa"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp("exported")
    with stores.in_force(folder), trained.checked_here():
        record = trained.prepare_data(folder)
        examples = prepared.load(folder / "data")[0]["test"].to_list()
        trained.log_run(folder, tiny, record, examples, experiment="squad-qa", language="de")
        done = register.register_best("squad-qa")
        yield done, onnx_versions.export_version(QA, done.version)


def frame():
    return pd.DataFrame([{name: e[name] for name in ("question", "context")} for e in EXAMPLES])


@pytest.mark.slow
def test_it_answers_as_the_version_does(exported):
    done, lines = exported
    assert len(lines) == 2 and f"fp32: {len(EXAMPLES)} of {len(EXAMPLES)} answers are the same" in lines[0]
    answers = {}
    for uri in (f"models:/{done.name}/{done.version}", f"models:/{done.name}-onnx@fp32"):
        answers[uri] = mlflow.pyfunc.load_model(uri).predict(frame())
    own, onnx = answers.values()
    assert own[["answer", "start", "end"]].equals(onnx[["answer", "start", "end"]])
    assert (own["score"] - onnx["score"]).abs().max() < 1e-4


@pytest.mark.slow
def test_it_is_asked_files_and_is_no_checkpoint(exported):
    done, _ = exported
    found = {
        uri: models.load(uri) for uri in (f"models:/{done.name}@champion", f"models:/{done.name}-onnx@fp32")
    }
    answers = [
        [row["answer"] for row in predicting.answer(model, {"null_odds": True}, EXAMPLES)]
        for model in found.values()
    ]
    assert answers[0] == answers[1]
    with pytest.raises(UserError, match="is an ONNX version"):
        planning.resolve_checkpoint(f"models:/{done.name}-onnx@fp32")


@pytest.mark.slow
def test_what_was_found_stands_with_the_version(exported):
    done, _ = exported
    version = mlflow.MlflowClient().get_model_version_by_alias(f"{done.name}-onnx", "fp32")
    assert version.tags["exported_from"] == done.version and version.tags["export_other"] == "0.0000"
    assert float(version.tags["export_lost"]) == 0 and float(version.tags["size_mib"]) > 0
    assert "answers are the same" in version.description
    source = mlflow.MlflowClient().get_model_version(done.name, done.version).tags
    for name in ("data_name", "data_version", "data_language", "data_fingerprint"):
        assert version.tags[name] == source[name]
    stored = mlflow.artifacts.download_artifacts(f"models:/{done.name}-onnx/{version.version}")
    needed = Path(stored)
    assert "onnxruntime==" in (needed / "requirements.txt").read_text()
    about = json.loads((needed / "artifacts" / "bundle" / bundles.BUNDLE).read_text())
    assert about["runtime"] == "onnx-fp32"
    assert not list((needed / "artifacts").rglob("*.safetensors"))


@pytest.mark.slow
def test_int8_is_registered_only_where_it_loses_little(exported):
    done, lines = exported
    number = mlflow.MlflowClient().search_model_versions(
        f"name = '{done.name}-onnx' and tags.precision = 'int8'"
    )
    assert ("not registered" in lines[1]) == (not number)
    assert all(float(version.tags["export_lost"]) <= onnx_versions.MOST_LOST for version in number)


@pytest.mark.long
@pytest.mark.parametrize(
    "door", (tampering.loaded, tampering.asked_on_the_page), ids=lambda door: door.__name__
)
def test_a_changed_byte_of_any_of_its_files_is_refused_by_name(door, exported):
    uri = f"models:/{exported[0].name}-onnx@fp32"
    door(uri)
    names = tampering.refused(lambda: door(uri), [tampering.folder_of(uri)], [tampering.changed])
    assert any(name.endswith(".onnx") for name in names) and "model.py" in names, names


@pytest.mark.long
def test_another_answer_of_fp32_is_refused(exported, monkeypatch):
    done, _ = exported
    client = mlflow.MlflowClient()
    client.delete_registered_model(f"{done.name}-onnx")
    answers = onnx_versions.first_answers

    def wrong(bundle, records, task):
        found = answers(bundle, records, task)
        if bundles.read_bundle(bundle).runtime != "torch":
            found[0] = found[0] | {"start": 0, "end": 1, "score": found[0]["score"] / 2}
        return found

    monkeypatch.setattr(onnx_versions, "first_answers", wrong)
    # What is refused is not certified first.
    monkeypatch.setattr(recertifying, "settings", lambda *_: pytest.fail("certified"))
    with pytest.raises(UserError, match=f"answers 1 of {len(EXAMPLES)} test questions differently"):
        onnx_versions.export_version(QA, done.version)
    assert not client.search_model_versions(f"name = '{done.name}-onnx'")


@pytest.mark.long
def test_what_loses_too_much_is_not_certified(exported, monkeypatch):
    done, _ = exported
    for name in mlflow.MlflowClient().search_registered_models(f"name = '{done.name}-onnx'"):
        mlflow.MlflowClient().delete_registered_model(name.name)
    monkeypatch.setattr(onnx_versions, "MOST_LOST", -1.0)
    monkeypatch.setattr(recertifying, "settings", lambda *_: pytest.fail("certified"))
    lines = onnx_versions.export_version(QA, done.version)
    assert len(lines) == 2 and all("not registered" in line for line in lines)


@pytest.mark.slow
def test_a_family_without_an_export_is_refused_before_it_is_asked(exported, monkeypatch):
    done, _ = exported
    for name in mlflow.MlflowClient().search_registered_models(f"name = '{done.name}-onnx'"):
        mlflow.MlflowClient().delete_registered_model(name.name)
    monkeypatch.setattr(onnx_versions, "refusal", lambda family: "it decides while it computes")
    monkeypatch.setattr(onnx_versions, "first_answers", lambda *_: pytest.fail("asked"))
    with pytest.raises(UserError, match="bert has no ONNX export: it decides while it computes"):
        onnx_versions.export_version(QA, done.version)


@pytest.mark.slow
def test_without_its_packages_it_says_what_to_install(exported, monkeypatch):
    import sys

    done, _ = exported
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="requirements-onnx.txt"):
        onnx_versions.export_version(QA, done.version)


def test_a_moved_export_of_another_version_with_the_same_number_does_not_count(tmp_path):
    """Numbers differ between stores; the run tells whose export it is."""
    with stores.in_force(tmp_path):
        client = mlflow.MlflowClient()
        for name in (QA.registered, f"{QA.registered}-onnx"):
            client.create_registered_model(name)
        uri = f"models:/{client.create_logged_model('0').model_id}"
        client.create_model_version(QA.registered, uri, tags={"run_id": "0" * 32})
        for precision in onnx_versions.PRECISIONS:
            tags = {"exported_from": "1", "run_id": "0" * 32}
            made = client.create_model_version(f"{QA.registered}-onnx", uri, tags=tags)
            client.set_registered_model_alias(made.name, precision, made.version)
        (line,) = onnx_versions.export_version(QA, "1")
        assert "is exported already" in line
        client.set_model_version_tag(made.name, made.version, "run_id", "1" * 32)
        # It begins, with the run, which this store does not have.
        with pytest.raises((MlflowException, UserError), match="0" * 32):
            onnx_versions.export_version(QA, "1")
