"""What a saved model says of itself, as it is written and as earlier versions wrote it."""

import json

import pytest

from common.models import bundles
from common.paths import ROOT

STORED = sorted((ROOT / "tests" / "stored_models").glob("*/model/artifacts/bundle/bundle.json"))


@pytest.mark.parametrize("file", STORED, ids=lambda file: file.relative_to(ROOT).parts[2])
def test_settings_that_were_written_flat_are_read(file):
    before = json.loads(file.read_text())
    assert "settings" not in before
    info = bundles.read_bundle(file.parent)
    heads = {"extractive-qa": "QuestionAnswering", "classification": "SequenceClassification"}
    assert (info.task, info.head) == (before["task"], heads[before["task"]])
    held = vars(info) | info.settings
    assert {name: held[name] for name in before} == before


def test_there_are_such_files():
    assert len(STORED) == 2


@pytest.mark.parametrize(("model_type", "head"), [("gpt2", "CausalLM"), ("t5", "Seq2SeqLM")])
def test_what_writes_has_the_head_of_its_kind(model_type, head):
    before = {"technique": "LoRA", "model_type": model_type, "checkpoint": "", "base_fingerprint": ""}
    before |= {"task": "generative-qa", "max_length": 64, "labels": [], "runtime": "torch"}
    info = bundles.BundleInfo(**bundles.upgraded(before))
    assert info.head == head and info.settings["max_length"] == 64


def test_what_is_written_is_read_as_it_was(tmp_path):
    info = bundles.BundleInfo("LoRA", "bert", "", "", "any", "QuestionAnswering", {"max_length": 8})
    bundles.write_info(tmp_path, info)
    assert bundles.read_bundle(tmp_path) == info
