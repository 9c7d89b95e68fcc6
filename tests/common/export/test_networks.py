"""Networks for ONNX Runtime: optimum's layout, and the logits of the stored model."""

import re

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime", reason="needs requirements-onnx.txt")
pytest.importorskip("onnxscript", reason="needs requirements-onnx.txt")

import onnxruntime
from transformers import AutoConfig, AutoTokenizer

from common.api import export
from common.errors import UserError
from common.export import samples
from common.models import onnx as networks
from common.models.bundles import load_bundle
from tests.common.export.test_card import _served, program, run
from tests.support.cells import CLASSIFICATION, QA
from tests.support.exported import alone, saved
from tests.support.exported import opened_here as opened_here

SEGMENTS = ["input_ids", "attention_mask", "token_type_ids"]


def logits(folder, file, inputs):
    session = onnxruntime.InferenceSession(str(folder / file))
    names = [each.name for each in session.get_outputs()]
    given = {each.name: inputs[each.name].numpy() for each in session.get_inputs()}
    return dict(zip(names, session.run(names, given), strict=True))


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "family", "head", "inputs"),
    [
        ("lora", "bert", QA, SEGMENTS),
        ("prefix-tuning", "bert", QA, SEGMENTS),
        ("prompt-encoder", "bert", QA, SEGMENTS),
        ("bottleneck", "bert", QA, SEGMENTS),
        ("standard", "distilbert", CLASSIFICATION, SEGMENTS[:2]),
    ],
    ids=str,
)
def test_it_has_optimums_names_and_the_models_logits(name, family, head, inputs, tiny, tmp_path, opened_here):
    bundle = saved(tmp_path, tiny, name, family, head)
    folder = export(bundle, tmp_path / "out", "onnx").folder
    assert AutoConfig.from_pretrained(folder).model_type == family
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    assert [each.name for each in session.get_inputs()] == inputs
    outputs = ["start_logits", "end_logits"] if head == QA else ["logits"]
    assert [each.name for each in session.get_outputs()] == outputs
    rows = ["What is it?", "No."], ["The heart pumps blood.", "The engine was built in 1712."]
    asked = AutoTokenizer.from_pretrained(folder)(*rows, padding=True, return_tensors="pt")
    model, _, _ = load_bundle(bundle)
    with torch.no_grad():
        expected = model(**asked)
    found, small = logits(folder, "model.onnx", asked), logits(folder, "model_quantized.onnx", asked)
    for output in outputs:
        real = asked["attention_mask"].bool().numpy() if head == QA else ...
        wanted = expected[output].numpy()[real]
        np.testing.assert_allclose(found[output][real], wanted, atol=1e-4)
        assert np.abs(small[output][real] - wanted).max() > 0
        assert np.corrcoef(small[output][real].ravel(), wanted.ravel())[0, 1] > 0.8
    assert (folder / "model_quantized.onnx").stat().st_size < (folder / "model.onnx").stat().st_size


@pytest.mark.long
def test_the_program_of_its_card_answers(tiny, tmp_path, monkeypatch, capsys):
    """Opened, and asked, without this project."""
    bundle = saved(tmp_path, tiny)
    done = export(bundle, tmp_path / "out", "onnx")
    assert "Opened in a process without this project" in done.lines[1]
    (answer,) = _served(bundle, [{"question": samples.ASKED, "context": samples.TEXT}])
    assert alone(program(tmp_path / "out"), tmp_path / "out").strip() == answer["answer"]
    bundle = saved(tmp_path / "labels", tiny, head=CLASSIFICATION)
    export(bundle, tmp_path / "more", "onnx")
    lines = run(program(tmp_path / "more"), tmp_path / "more", monkeypatch, capsys).splitlines()
    answers = _served(bundle, [{"text": samples.TEXT}, {"text": "No."}])
    assert [line.split()[0] for line in lines] == [answer["label"] for answer in answers]


def test_what_has_no_network_is_refused(tiny, tmp_path, monkeypatch):
    bundle = saved(tmp_path, tiny, "lora", "t5", "Seq2SeqLM")
    with pytest.raises(UserError, match="token by token.*--format merged or --format adapter or serve"):
        export(bundle, tmp_path / "out", "onnx")

    def missing(*modules):
        raise UserError("ONNX needs further packages: run pip install -r requirements-onnx.txt.")

    monkeypatch.setattr(networks, "needed", missing)
    with pytest.raises(UserError, match=re.escape("requirements-onnx.txt")):
        export(saved(tmp_path / "qa", tiny), tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))
