"""Models of every kind of name, and what their answers depend on. Those of the store: tests/common/api/test_asking.py."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from common.errors import UserError
from common.inference import models
from tests.support import trained
from tests.support.questions import EXAMPLES

ROWS = [{name: example[name] for name in ("question", "context")} for example in EXAMPLES]


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tiny):
    bundle, base, *_ = trained.save(tmp_path_factory.mktemp("saved"), tiny, seed=5)
    base.rename(bundle / "base")
    return bundle


def test_a_stored_model_is_known_by_its_id_whatever_leads_to_it(run):
    id_ = run[0].info.run_id
    found = [models.load(name) for name in (id_, f"runs:/{id_}/model")]
    assert found[0].origin == found[1].origin and found[0].origin.run_id == id_
    assert found[0].origin.model_id and found[0].origin.model_id in found[0].origin.content
    again = models.load(f"models:/{found[0].origin.model_id}")
    pd.testing.assert_frame_equal(again.predict(ROWS), found[0].predict(ROWS))


def test_a_folder_is_known_by_its_content(saved, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(saved, copy)
    first, second = models.load(str(saved)), models.load(str(copy))
    assert first.origin == second.origin and not first.origin.run_id
    info = copy / "bundle.json"
    info.write_text(info.read_text().replace('"max_answer_length": 30', '"max_answer_length": 2'))
    assert models.load(str(copy)).origin != first.origin


def test_a_model_says_which_rules_score_it(saved):
    assert models.load(str(saved)).task.data == "qa"


def test_what_is_no_text_is_refused_by_the_model(saved):
    model = models.load(str(saved))
    for value, reason in ((None, "null"), (5, "int"), (float("nan"), "float")):
        with pytest.raises(UserError, match=f"row 0: question must be a string, not {reason}"):
            model.predict([{"question": value, "context": "x"}])


def test_parameters_are_checked_as_mlflow_checks_them(saved):
    model = models.load(str(saved))
    with pytest.raises(UserError, match="Failed to validate type and shape for 'top_k'"):
        model.answer(**ROWS[0], top_k="3")
    assert len(model.answer(**ROWS[0], top_k=3)["alternatives"]) == 2
    # A whole number stands for a number.
    assert model.answer(**ROWS[0], null_threshold=-1000)["answer"] == ""


def test_a_model_of_single_texts_or_of_questions_takes_no_pairs(saved):
    with pytest.raises(UserError, match="--pairs: .* takes question and context"):
        models.load(str(saved), pairs=True)


@pytest.mark.parametrize("name", ["./missing", "/nowhere/at/all", "a/b/c"])
def test_a_path_to_nothing_is_no_model_of_the_hub(name):
    with pytest.raises(UserError, match="there is no such folder"):
        models.load(name)


class Network(torch.nn.Module):
    place = "cpu"

    def to(self, place):
        self.place = place


@pytest.mark.parametrize("gpu", [True, False])
def test_networks_go_to_the_gpu_where_there_is_one(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    alone, beside, exported = Network(), Network(), Network()
    exported.sessions = {1: "ONNX Runtime"}
    several = SimpleNamespace(answerers={"LoRA": SimpleNamespace(model=beside)})
    parts = {
        "answerer": SimpleNamespace(model=alone),
        "models": several,
        "onnx": SimpleNamespace(model=exported),
    }
    models.to_accelerator(SimpleNamespace(max_context=5, **parts))
    assert [each.place for each in (alone, beside, exported)] == (
        ["cuda", "cuda", "cpu"] if gpu else ["cpu"] * 3
    )


def test_the_parts_of_served_models_are_found(saved, monkeypatch):
    """A model whose network was under another name would stay on the CPU, unnoticed."""
    moved = []
    monkeypatch.setattr(models, "to_accelerator", lambda answering: moved.append(vars(answering)))
    models.load(str(saved))
    assert isinstance(moved[0]["answerer"].model, torch.nn.Module)
