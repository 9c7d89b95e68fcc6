"""The gradient norm of each layer, whatever a model calls its layers."""

import pytest
import torch

from common.gradients import by_layer, layer_of


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        (
            "base_model.model.bert.encoder.layer.11.attention.self.query.lora_A.default.weight",
            "encoder layer 11",
        ),
        ("distilbert.transformer.layer.0.attention.q_lin.weight", "layer 0"),
        ("base_model.model.transformer.h.3.attn.c_attn.lora_B.default.weight", "layer 3"),
        ("encoder.block.2.layer.0.SelfAttention.q.weight", "encoder layer 2"),
        ("decoder.block.2.layer.1.EncDecAttention.q.weight", "decoder layer 2"),
        ("model.layers.7.attn.Wqkv.weight", "layer 7"),
        ("bert.embeddings.word_embeddings.weight", "embeddings"),
        ("transformer.wte.weight", "embeddings"),
        ("shared.weight", "embeddings"),
        ("qa_outputs.modules_to_save.default.weight", "other"),
    ],
)
def test_layers_are_known_by_the_names_of_their_parameters(name, layer):
    assert layer_of(name) == layer


def test_norms_are_those_before_clipping():
    parameters = {f"h.{i}.{name}": torch.nn.Parameter(torch.zeros(3)) for i in range(2) for name in "ab"}
    parameters["h.2.frozen"] = torch.nn.Parameter(torch.zeros(3))
    rng = torch.Generator().manual_seed(0)
    for name, parameter in parameters.items():
        if "frozen" not in name:
            parameter.grad = torch.randn(3, generator=rng)
    for limit in (1e-2, 1e2):
        for parameter in parameters.values():
            if parameter.grad is not None:
                parameter.grad = torch.randn(3, generator=rng)
        grads = {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}
        expected = {
            f"layer {i}": float(torch.cat([grads[f"h.{i}.a"], grads[f"h.{i}.b"]]).norm()) for i in range(2)
        }
        total = float(torch.nn.utils.clip_grad_norm_(parameters.values(), limit))
        assert by_layer(parameters.items(), total, limit) == pytest.approx(expected, rel=1e-4)
