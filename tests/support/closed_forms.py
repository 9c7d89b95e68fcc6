"""Trainable parameters by each technique's formula, from the shapes of a base's layers."""

import math
import re

import torch
from transformers.pytorch_utils import Conv1D

from tests.support.techniques import VARIANTS
from tests.support.techniques import technique as technique_of


def divisor_near(number: int, wanted: int) -> int:
    """The divisor of a number that is nearest to another number; the smaller one of two."""
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    return min(divisors, key=lambda d: (abs(d - wanted), d))


def square_factors(number: int) -> tuple[int, int]:
    """The two factors of a number that are nearest to each other, the smaller one first."""
    first = max(d for d in range(1, math.isqrt(number) + 1) if number % d == 0)
    return first, number // first


def lokr(rank: int, inputs: int, outputs: int) -> int:
    """A full first factor, and a second one that is of low rank where that is smaller."""
    (a, b), (c, d) = square_factors(outputs), square_factors(inputs)
    return a * c + (rank * (b + d) if rank < max(b, d) / 2 else b * d)


def closed_form(technique: str, base, family, head: str) -> int:
    """Trainable parameters by the technique's formula, from the shapes of the base's layers."""
    t = technique_of(technique)
    of_head = sum(p.numel() for name in family.heads[head] for p in base.get_submodule(name).parameters())
    shapes = {}
    for name, module in base.named_modules():
        if isinstance(module, torch.nn.Linear) and not name.startswith(family.heads[head]):
            shapes[name] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            shapes[name] = tuple(module.weight.shape)
    c = base.config
    # ALBERT passes the same layer several times.
    layers = getattr(c, "num_hidden_groups", 0) * getattr(c, "inner_group_num", 0) or c.num_hidden_layers
    if family.kind == "encoder-decoder":
        # A decoder's layer attends to itself and to the encoder.
        layers = getattr(c, "encoder_layers", None) or c.num_layers
        layers += 2 * (getattr(c, "decoder_layers", None) or c.num_decoder_layers)
    # Keys may have fewer heads than queries, and heads need not add up to the hidden size.
    heads = getattr(c, "num_key_value_heads", None) or c.num_attention_heads
    size = getattr(c, "d_kv", None) or getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads

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
    of_norms = sum(
        p.numel()
        for n, p in inner.items()
        if re.search(r"(norm|Norm|ln_\w|layernorm_embedding)\.(weight|bias)$", n)
    )
    match VARIANTS.get(technique, (technique,))[0]:
        case "standard":
            return sum(p.numel() for p in base.parameters())
        case "lora":
            attention = {"attention": roles(family.query, family.key, family.value)}
            updated = attention.get(t.targets, everywhere)
            own = sum(o for _, o in updated)
            names = dict.fromkeys(
                (family.query, family.key, family.value) if t.targets == "attention" else family.linear_layers
            )
            suffixes = tuple(f".{name}.bias" for name in names)
            # The head's are counted with it.
            biases = {
                "none": 0,
                "lora_only": sum(p.numel() for n, p in inner.items() if n.endswith(suffixes)),
                "all": sum(p.numel() for n, p in inner.items() if n.endswith(".bias")),
            }
            return of_head + sum(t.r * (i + o) for i, o in updated) + own * t.dora + biases[t.bias]
        case "adalora":
            # Singular values and both factors, before any rank is taken away.
            return of_head + sum(t.initial_r * (i + o + 1) for i, o in everywhere)
        case "loha":
            return of_head + sum(2 * t.r * (i + o) for i, o in everywhere)
        case "ia3":
            return (
                of_head
                + sum(o for _, o in roles(family.key, family.value))
                + sum(i for i, _ in role(family.down))
            )
        case "lokr":
            return of_head + sum(lokr(t.r, i, o) for i, o in everywhere)
        case "vera":
            return of_head + sum(t.r + o for _, o in everywhere)
        case "oft":
            blocks = [(divisor_near(i, t.block_size), i) for i, _ in everywhere]
            return of_head + sum(i // size * size * (size - 1) // 2 for size, i in blocks)
        case "boft":
            return of_head + sum(t.butterfly_factors * i * t.block_size + o for i, o in everywhere)
        case "fourierft":
            return of_head + t.n_frequency * len(everywhere)
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
            gates = layers * heads if t.gating else 0
            return of_head + t.num_virtual_tokens * layers * 2 * heads * size + gates
        case "prompt-tuning":
            return of_head + t.num_virtual_tokens * base.get_input_embeddings().embedding_dim
        case "prompt-encoder":
            e = base.get_input_embeddings().embedding_dim
            return of_head + t.num_virtual_tokens * e + 3 * (e * e + e)
