"""What a study shows of rows that this machine cannot check, where running them is refused."""

import mlflow
import pytest
import yaml

from common import hub
from common.errors import NotHere, UserError
from common.models import base
from common.paths import ROOT
from common.tracking import runs
from tests.support.study_command import StudyCommand


@pytest.fixture
def show(tmp_path, monkeypatch, capsys):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)

    def show(content, *flags):
        content["base"] = content["base"] | {"data_dir": str(tmp_path / "data")}
        with pytest.MonkeyPatch.context() as patch:
            assert StudyCommand(content, tmp_path, patch)("--dry_run", *flags) == 0
        return capsys.readouterr().out

    yield show
    mlflow.set_tracking_uri(None)


def shipped(name):
    return yaml.safe_load((ROOT / "studies" / f"{name}.yaml").read_text())


@pytest.mark.parametrize(
    ("name", "rows", "checkpoint"),
    [("flan_t5_full_vs_peft", 4, "google/flan-t5-base"), ("gpt2_lora_sweep", 24, "gpt2")],
)
def test_rows_whose_checkpoint_cannot_be_reached_are_shown(
    show,
    tmp_path,
    monkeypatch,
    name,
    rows,
    checkpoint,
):
    monkeypatch.setattr(base, "_in_cache", lambda name: False)
    shown = show(shipped(name))
    assert shown.count(" unchecked") == rows
    assert f"rows cannot be checked here, and they may be finished: --model_checkpoint {checkpoint} " in shown
    assert "time left: unknown" in shown
    with pytest.MonkeyPatch.context() as patch:
        with pytest.raises(UserError, match=f"row .*--model_checkpoint {checkpoint} is no local folder"):
            StudyCommand(shipped(name), tmp_path, patch)()


def test_data_that_would_have_to_be_downloaded_and_its_shares(show, monkeypatch):
    from common.data import ensure
    from common.training import planning

    def missing(folder, kind):
        raise NotHere("The hub's imdb is not available: go online.")

    for module in (ensure, planning):
        monkeypatch.setattr(module, "ensure", missing)
    content = {"name": "texts", "description": "Two rows.", "techniques": ["lora"]}
    content["base"] = {"task": "classification", "model_checkpoint": "embedded"}
    content["grid"] = {"max_train_samples": ["10%", "50%"]}
    shown = show(content)
    assert "max_train_samples=10" in shown and "max_train_samples=50" in shown
    assert "2 of 2 rows cannot be checked here" in shown and "The hub's imdb is not available" in shown


def test_a_store_that_does_not_answer_is_asked_once(show, monkeypatch):
    asked = []

    def silent(*_):
        asked.append(1)
        raise NotHere("MLflow store http://nowhere: no answer")

    monkeypatch.setattr(runs, "finished_run", silent)
    content = {"name": "silent", "description": "Two rows.", "techniques": ["lora"], "seeds": [1, 2]}
    content["base"] = {"model_checkpoint": "embedded"}
    assert "2 of 2 rows cannot be checked here" in show(content) and len(asked) == 1


def test_two_names_for_the_same_runs_are_refused(show):
    content = {"name": "twice", "description": "Two rows.", "base": {"model_checkpoint": "embedded"}}
    content["techniques"] = {"lora": None, "LoRA again": {"technique": "lora", "r": 16}}
    with pytest.raises(
        UserError, match="row LoRA_again-seed=42: LoRA again is the same as lora here; set a field apart"
    ):
        show(content)
    content["techniques"]["LoRA again"]["r"] = 4
    assert "LoRA_again-seed=42" in show(content)


def test_a_mistake_is_refused_where_nothing_is_to_be_run_too(show):
    content = {"name": "wrong", "description": "One row.", "techniques": ["lora"]}
    content["base"] = {"model_checkpoint": "/nowhere"}
    with pytest.raises(UserError, match="no such folder"):
        show(content)


def test_a_hub_that_is_silent_is_not_asked_again_at_once(monkeypatch):
    asked = []

    def refuse(*_, **__):
        asked.append(1)
        raise OSError

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://nowhere.invalid:81")
    monkeypatch.setattr(hub.socket, "create_connection", refuse)
    assert not hub.hub_answers() and not hub.hub_answers() and len(asked) == 1
