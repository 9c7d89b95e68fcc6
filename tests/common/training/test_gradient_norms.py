"""Gradient norms by layer: which layer a parameter belongs to, and that the norms are those before clipping."""

import json
import math
from pathlib import Path

import pytest
import torch

from common.models.families import FAMILIES
from common.training.gradient_norms import layer_of, split_off
from tests.support.cells import QA


@pytest.mark.parametrize(
    ("parameter", "stacks", "layer"),
    [
        (
            "base_model.model.bert.encoder.layer.11.attention.self.query.lora_A.default.weight",
            False,
            "layer 11",
        ),
        ("distilbert.transformer.layer.0.ffn.lin1.weight", False, "layer 0"),
        ("model.layers.3.attn.Wqkv.weight", False, "layer 3"),
        ("transformer.h.5.mlp.c_fc.weight", False, "layer 5"),
        ("encoder.block.2.layer.1.DenseReluDense.wi.weight", True, "encoder layer 2"),
        ("base_model.model.decoder.block.2.layer.0.SelfAttention.q.weight", True, "decoder layer 2"),
        ("bert.embeddings.word_embeddings.weight", False, "embeddings"),
        ("transformer.wte.weight", False, "embeddings"),
        ("prompt_encoder.embedding.weight", False, "virtual tokens"),
        ("base_model.model.qa_outputs.modules_to_save.default.weight", False, "head"),
    ],
)
def test_the_layer_of_a_parameter(parameter, stacks, layer):
    assert layer_of(parameter, stacks) == layer


def test_every_family_has_its_layers(tiny):
    from transformers import AutoModelForQuestionAnswering

    for family in (family for family in FAMILIES.values() if family.kind == "encoder" and QA in family.heads):
        model = AutoModelForQuestionAnswering.from_pretrained(tiny(family.model_type))
        names = {layer_of(name) for name, _ in model.named_parameters()}
        blocks = {"layer 0"} if family.model_type == "albert" else {"layer 0", "layer 1"}
        assert {"embeddings", *blocks, "head"} == names, family


@pytest.mark.slow
def test_a_run_records_the_norms_before_clipping(recorded):
    _, artifacts, _ = recorded
    norms = json.loads(Path(artifacts, "gradient_norms.json").read_text())
    history = json.loads(Path(artifacts, "log_history.json").read_text())
    whole = {entry["step"]: entry["grad_norm"] for entry in history if "grad_norm" in entry}
    assert [entry["step"] for entry in norms] == list(whole) and len(norms) > 2
    for entry in norms:
        assert list(entry) == ["step", "layer 0", "layer 1", "head"]
        layers = [entry[name] for name in ("layer 0", "layer 1", "head")]
        assert all(norm > 0 for norm in layers)
        # Adapters and head together have the norm that the trainer reports, far above the 0.01 it clips to.
        assert math.hypot(*layers) == pytest.approx(whole[entry["step"]], rel=1e-3)
        assert whole[entry["step"]] > 0.02
    assert Path(artifacts, "gradient_flow.png").stat().st_size > 5000
    assert all("gradient_norms" not in entry for entry in history)


def test_norms_come_out_of_the_history_as_records():
    history = [{"step": 1, "gradient_norms": {"layer 0": 2.0}}, {"step": 1, "loss": 3.0}]
    assert split_off(history) == ([{"step": 1, "loss": 3.0}], [{"step": 1, "layer 0": 2.0}])


def test_a_layer_without_gradients_has_norm_0():
    from types import SimpleNamespace

    from common.training.gradient_norms import GradientNorms

    model = torch.nn.Module()
    model.layers = torch.nn.ModuleList([torch.nn.Linear(2, 2, bias=False) for _ in range(2)])
    model.config = SimpleNamespace()
    model.layers[0].weight.grad = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    norms, state = GradientNorms(), SimpleNamespace(global_step=9, log_history=[])
    norms.on_train_begin(None, state, None, model=model)
    # Clipped from a norm of 10 to one of 5.
    norms.total = torch.tensor(10.0)
    norms.on_pre_optimizer_step(SimpleNamespace(logging_steps=5), state, None)
    norms.on_pre_optimizer_step(SimpleNamespace(logging_steps=3), state, None)
    assert state.log_history == [{"step": 10, "gradient_norms": {"layer 0": 10.0, "layer 1": 0.0}}]
