"""What bundle.json says about a saved model, as this version and earlier ones write it."""

import json

import pytest

from common.models import bundles, untrained
from common.paths import ROOT

STORED = sorted((ROOT / "tests" / "stored_models").glob("*/model/artifacts/bundle/bundle.json"))
HEADS = {"extractive-qa": "QuestionAnswering", "classification": "SequenceClassification"}


@pytest.mark.parametrize("file", STORED, ids=lambda file: file.relative_to(ROOT).parts[2])
def test_settings_that_were_written_flat_are_read(file):
    before = json.loads(file.read_text())
    assert "settings" not in before
    info = bundles.read_bundle(file.parent)
    held = vars(info) | info.settings
    assert {name: held[name] for name in before} == before


@pytest.mark.parametrize("file", STORED, ids=lambda file: file.relative_to(ROOT).parts[2])
def test_a_head_that_was_not_written_is_that_of_the_base(file):
    info = bundles.read_bundle(file.parent)
    model, _, loaded = bundles.load_bundle(file.parent)
    assert loaded.head == HEADS[info.task]
    assert type(model.get_base_model()).__name__ == f"BertFor{loaded.head}"
    shared = bundles.load_shared_base(file.parent / "base", info)
    assert bundles.load_bundle(file.parent, shared=shared)[2] == loaded


def test_there_are_such_files():
    assert len(STORED) == 2


@pytest.mark.parametrize(("model_type", "head"), [("gpt2", "CausalLM"), ("t5", "Seq2SeqLM")])
def test_what_writes_has_the_head_of_its_kind(model_type, head, tmp_path):
    base = untrained.make(f"untrained-{model_type}", tmp_path)
    before = {"technique": "Standard", "model_type": model_type, "checkpoint": "", "base_fingerprint": ""}
    before |= {"task": "generative-qa", "max_length": 64, "labels": [], "runtime": "torch"}
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "bundle.json").write_text(json.dumps(before))
    info = bundles.load_bundle(tmp_path / "bundle", base)[2]
    assert info.head == head and info.settings["max_length"] == 64


def test_what_is_written_is_read_as_it_was(tmp_path):
    info = bundles.BundleInfo("LoRA", "bert", "", "", "any", "QuestionAnswering", {"max_length": 8})
    bundles.write_info(tmp_path, info)
    assert bundles.read_bundle(tmp_path) == info
