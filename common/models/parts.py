"""Which part of a model a parameter belongs to: its embeddings, a block at some depth, its head; and how large a model is."""

import json
import re
from functools import cache

import torch
from torch import nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from .bundles import quietly
from .families import Family
from .methods import stacks

_EMBEDDINGS = re.compile(r"(^|\.)(\w*embed\w*|wte|wpe|shared|relative_attention_bias)\.")


def embeddings(model: nn.Module, family: Family) -> set[str]:
    """Names of the parameters that turn tokens, positions and segments into the first block's input."""
    inside = {id(p) for stack in stacks(model, family) for block in stack for p in block.parameters()}
    return {n for n, p in model.named_parameters() if id(p) not in inside and _EMBEDDINGS.search(n)}


def depths(model: nn.Module, family: Family) -> dict[str, int]:
    """Parameter → the number of blocks above its own: 0 in the last block, the number of all blocks in the embeddings.

    Parameters that are in neither, such as those of the head, are left out. Encoder and decoder are counted apart.
    """
    found = stacks(model, family)
    above = {
        id(p): i for stack in found for i, block in enumerate(reversed(stack)) for p in block.parameters()
    }
    depth = {n: above[id(p)] for n, p in model.named_parameters() if id(p) in above}
    return depth | dict.fromkeys(embeddings(model, family), max(map(len, found)))


def of_head(name: str, family: Family, head: str) -> bool:
    """Whether a parameter belongs to a head, whatever a technique has put around its modules."""
    return any(f".{module}." in f".{name}" for module in family.heads[head])


def can_checkpoint(config: PreTrainedConfig) -> bool:
    """Whether transformers' model of a config can keep its blocks' inputs alone, as `checkpoint_gradients` asks it to."""
    return bool(MODEL_MAPPING[type(config)].supports_gradient_checkpointing)


def checkpoint_gradients(model: nn.Module) -> None:
    """Let the blocks of a model, with or without a technique on it, keep their inputs alone for the backward pass.

    Its form without reentrance needs no input that requires a gradient. transformers makes the embeddings' output
    require one anyway, which computes gradients down to blocks that are not trained; that is undone.
    """
    base = next(m for m in model.modules() if isinstance(m, PreTrainedModel))
    base.activation_checkpointing_enable({"use_reentrant": False})
    base.disable_input_require_grads()


def size(config: PreTrainedConfig) -> int:
    """The number of parameters of the model of a config, without its word embeddings and head. No memory is taken."""
    return _size(json.dumps(config.to_dict(), sort_keys=True, default=str))


@cache
def _size(fields: str) -> int:
    with torch.device("meta"):
        config = AutoConfig.for_model(**json.loads(fields))
        model = quietly(AutoModel.from_config, config, trust_remote_code=False)
    words = model.get_input_embeddings().weight
    return sum(p.numel() for p in model.parameters() if p is not words)
