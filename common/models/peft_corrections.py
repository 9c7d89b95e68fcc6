"""Where PEFT's adapters give wrong answers, corrected for training and for serving.

docs/ARCHITECTURE.md lists each fault with its test.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.boft import layer as boft
from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import CONFIG_NAME
from peft.utils.other import AuxiliaryTrainingWrapper

from ..errors import UserError
from .bundles import quietly
from .families import Family
from .peft_kinds import CANNOT_MERGE

FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    re.error,
)
"""What PEFT and torch raise for values that do not fit a model: a negative rank, a target that is no regular expression."""


class BlockDiagonal:
    """Blocks → block-diagonal matrices, and back for gradients, in the place of PEFT's CUDA extension for BOFT.

    PEFT compiles that extension when a layer is made. Where this fails, as on any machine without CUDA's compiler, it
    trains a single butterfly factor, whatever the config says, and cannot load what another machine trained.
    """

    @staticmethod
    def forward(blocks: torch.Tensor) -> tuple[torch.Tensor]:
        """blocks: (batch, blocks, size, size) → ((batch, blocks * size, blocks * size),)."""
        batch, count, size, _ = blocks.shape
        out = blocks.new_zeros(batch, count, size, count, size)
        out.diagonal(dim1=1, dim2=3).copy_(blocks.permute(0, 2, 3, 1))
        return (out.view(batch, count * size, count * size),)

    @staticmethod
    def backward(grad: torch.Tensor, blocks: torch.Tensor) -> tuple[torch.Tensor]:
        """The gradient of what `forward` gave → that of the blocks."""
        batch, count, size, _ = blocks.shape
        inner = grad.reshape(batch, count, size, count, size).diagonal(dim1=1, dim2=3)
        return (inner.permute(0, 3, 1, 2).contiguous(),)


def opened(model: torch.nn.Module, adapter: Path, family: Family, head: str) -> PeftModel:
    """A base with a saved adapter, for inference."""
    install()
    found: PeftModel = quietly(PeftModel.from_pretrained, model, str(adapter))
    return found


def merges(adapter: Path) -> bool:
    """Whether an adapter can be merged into its base."""
    return json.loads((adapter / CONFIG_NAME).read_text())["peft_type"] not in CANNOT_MERGE


def install() -> None:
    """Correct what has to be corrected before an adapter is made or loaded. It can be called again."""
    boft._FBD_CUDA = BlockDiagonal


def check_ties(model: torch.nn.Module, name: str) -> None:
    """UserError where a method updates one of several layers that share a weight: merged into it, the others would change
    too, and before that they do not see what is trained."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    ends = base.get_input_embeddings(), base.get_output_embeddings()
    shared = None not in ends and ends[0].weight is ends[1].weight
    if shared and any(
        isinstance(e, BaseTunerLayer) and not isinstance(e, TrainableTokensLayer) for e in ends
    ):
        raise UserError(
            f"{name}: its word embeddings are its output layer too, which an update cannot change apart: leave them out of "
            "target_modules, or use trainable_token_indices."
        )
    tokens = [m.get_base_layer() for m in base.modules() if isinstance(m, TrainableTokensLayer)]
    reading = [m for m in base.modules() if isinstance(m, torch.nn.Embedding) and m not in tokens]
    if any(m.weight is layer.weight for m in reading for layer in tokens):
        # PEFT follows ties only as far as a class lists them, which BartForQuestionAnswering does not.
        raise UserError(
            f"{name}: its encoder and decoder read words from embeddings that share the one that PEFT trains, without what is "
            "trained of it: tokens cannot be trained."
        )


def merged(model: PeftModel) -> torch.nn.Module:
    """The base with an adapter in its weights. PEFT's layer-norm tuning leaves the trained head in its wrapper."""
    plain: torch.nn.Module = model.merge_and_unload()
    for name, wrapper in list(plain.named_modules()):
        if isinstance(wrapper, AuxiliaryTrainingWrapper):
            parent, _, last = name.rpartition(".")
            head = wrapper.unload_and_optionally_merge_module(
                merge=True, safe_merge=False, adapter_names=None
            )
            setattr(plain.get_submodule(parent), last, head)
    return plain
