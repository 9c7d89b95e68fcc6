"""Trainable parameters by each technique's formula, from the shapes of a base's layers."""

import re

import torch
from transformers.pytorch_utils import Conv1D

from tests.support.techniques import TECHNIQUES


def closed_form(technique: str, base, family, head: str) -> int:
    """Trainable parameters by the technique's formula, from the shapes of the base's layers."""
    t = TECHNIQUES[technique]()
    of_head = sum(p.numel() for name in family.heads[head] for p in base.get_submodule(name).parameters())
    shapes = {}
    for name, module in base.named_modules():
        if isinstance(module, torch.nn.Linear) and not name.startswith(family.heads[head]):
            shapes[name] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            shapes[name] = tuple(module.weight.shape)
    layers, hidden = base.config.num_hidden_layers, base.config.hidden_size
    if family.kind == "encoder-decoder":
        # A decoder's layer attends to itself and to the encoder; heads need not add up to the hidden size.
        layers = base.config.num_layers + 2 * base.config.num_decoder_layers
        hidden = base.config.num_heads * base.config.d_kv

    def role(suffix):
        return [
            s
            for n, s in shapes.items()
            if n.endswith("." + suffix) and not (suffix == "output.dense" and "attention" in n)
        ]

    def roles(*names):
        return [shape for name in dict.fromkeys(names) for shape in role(name)]

    everywhere = roles(*family.linear_layers)
    inner = {n: p for n, p in base.named_parameters() if not n.startswith(family.heads[head])}
    of_norms = sum(p.numel() for n, p in inner.items() if re.search(r"(norm|Norm|ln_\w)\.(weight|bias)$", n))
    match technique:
        case "standard":
            return sum(p.numel() for p in base.parameters())
        case "lora":
            return of_head + sum(t.r * (i + o) for i, o in everywhere)
        case "loha":
            return of_head + sum(2 * t.r * (i + o) for i, o in everywhere)
        case "ia3":
            return (
                of_head
                + sum(o for _, o in roles(family.key, family.value))
                + sum(i for i, _ in role(family.down))
            )
        case "bitfit":
            return of_head + sum(p.numel() for n, p in inner.items() if n.endswith(".bias"))
        case "layer-norm":
            return of_head + of_norms
        case "head":
            return of_head
        case "top-layers":
            block = re.compile(r"\.(?:layer|layers|h|block)\.(\d+)\.")
            half = "decoder." if family.kind == "encoder-decoder" else ""
            numbered = [(int(m[1]), p) for n, p in inner.items() if (m := block.search(n)) and half in n]
            last = max(number for number, _ in numbered)
            return of_head + sum(p.numel() for number, p in numbered if number > last - t.layers)
        case "bottleneck":
            widths = [o for _, o in roles(family.attention_output, family.down)]
            return of_head + of_norms + sum(2 * t.size * o + t.size + o for o in widths)
        case "prefix-tuning":
            gates = layers * base.config.num_attention_heads if t.gating else 0
            return of_head + t.num_virtual_tokens * layers * 2 * hidden + gates
        case "prompt-tuning":
            return of_head + t.num_virtual_tokens * base.get_input_embeddings().embedding_dim
        case "prompt-encoder":
            e = base.get_input_embeddings().embedding_dim
            return of_head + t.num_virtual_tokens * e + 3 * (e * e + e)
