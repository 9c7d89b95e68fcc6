"""Prefix tuning and P-tuning for encoders, with PEFT's parameters and without PEFT's forward pass.

PEFT's own forward drops the segment ids, leaves the answer labels where they were although the virtual tokens moved
the logits, moves the position ids of the real tokens, and needs `past_key_values`, which encoders such as DistilBERT
do not have. Here virtual tokens never appear in the logits, so labels, offsets and decoding see only the real input;
real tokens keep their position and segment ids; and prefixes enter at the attention function, which every encoder of
the `transformers` attention interface calls.
"""

from pathlib import Path

import torch
from peft import PeftConfig, PeftType, PrefixTuningConfig
from peft.tuners import PrefixEncoder, PromptEncoder
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .families import Family

ATTENTION = "sdpa_with_prefix"
WEIGHTS = "adapter_model.safetensors"
PREFIX_STD = 0.1
"""Of the untrained prefix; PEFT draws with a deviation of 1. What was tried stands in docs/RESULTS.md."""


def attention_with_prefix(module, query, key, value, attention_mask, prefix=None, **kwargs):
    """Scaled dot-product attention in which every query also sees this layer's trained keys and values.

    query, key, value: (batch, heads, length, head_dim); prefix: (layers, 2, heads, virtual tokens, head_dim).
    """
    if prefix is not None:
        keys, values = prefix[module.prefix_layer].expand(len(key), -1, -1, -1, -1).unbind(1)
        key, value = torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2)
        if attention_mask is not None:
            seen = True if attention_mask.dtype == torch.bool else 0.0
            attention_mask = nn.functional.pad(attention_mask, (prefix.shape[-2], 0), value=seen)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


AttentionInterface.register(ATTENTION, attention_with_prefix)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


class PromptModel(nn.Module):
    """A frozen model, its head, and the virtual tokens that steer it.

    Trainable are the head and PEFT's encoder of the virtual tokens (Li & Liang 2021 for prefixes; Liu et al. 2021 for
    prompts). `forward` answers as the base model does: logits of tokens have the length of the input, labels count from
    its first token.
    """

    def __init__(self, model: nn.Module, peft_config: PeftConfig, family: Family, task: str):
        super().__init__()
        self.is_prefix = isinstance(peft_config, PrefixTuningConfig)
        complete(peft_config, model)
        self.peft_config, self.family, self.head = peft_config, family, family.heads[task]
        self.base_model = model.requires_grad_(False)
        for name in self.head:
            model.get_submodule(name).requires_grad_(True)
        self.prompt_encoder = (PrefixEncoder if self.is_prefix else PromptEncoder)(peft_config)
        self.register_buffer("virtual_tokens", torch.arange(peft_config.num_virtual_tokens), persistent=False)
        if self.is_prefix:
            if not peft_config.prefix_projection:
                nn.init.normal_(self.prompt_encoder.embedding.weight, std=PREFIX_STD)
            model.config._attn_implementation = ATTENTION
            layers = [m for m in model.modules() if type(m).__name__.endswith(family.self_attention)]
            for i, layer in enumerate(layers):
                layer.prefix_layer = i

    @property
    def config(self):
        return self.base_model.config

    def prompt(self) -> torch.Tensor:
        """What the encoder makes of the virtual tokens: (virtual tokens, 2 * layers * hidden) or (virtual tokens, embedding)."""
        if self.peft_config.inference_mode:
            return self.prompt_encoder.embedding.weight
        return self.prompt_encoder(self.virtual_tokens.unsqueeze(0))[0]

    def forward(self, input_ids, attention_mask, token_type_ids=None):
        """The base model's output; input_ids, attention_mask, token_type_ids: (batch, length)."""
        segments = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        if self.is_prefix:
            return self.base_model(
                input_ids=input_ids, attention_mask=attention_mask, prefix=self.prefix(), **segments
            )
        return self._prompted(input_ids, attention_mask, segments)

    def prefix(self) -> torch.Tensor:
        """Keys and values: (layers, 2, heads, virtual tokens, head_dim)."""
        c = self.peft_config
        shape = (c.num_virtual_tokens, c.num_layers, 2, c.num_attention_heads, -1)
        return self.prompt().view(shape).permute(1, 2, 3, 0, 4).to(self.base_model.dtype)

    def _prompted(self, input_ids, attention_mask, segments):
        """Virtual tokens stand behind the first token, so that this one, whose state classification reads, stays first."""
        embedded = self.base_model.get_input_embeddings()(input_ids)
        batch, length = input_ids.shape
        prompt = self.prompt().to(embedded.dtype).expand(batch, -1, -1)
        n = prompt.shape[1]

        def widened(ids, value):
            return torch.cat([ids[:, :1], nn.functional.pad(ids[:, 1:], (n, 0), value=value)], dim=1)

        inputs = {
            "inputs_embeds": torch.cat([embedded[:, :1], prompt, embedded[:, 1:]], dim=1),
            "attention_mask": widened(attention_mask, 1),
            **{name: widened(ids, 0) for name, ids in segments.items()},
        }
        if self.family.first_position is not None:
            # Real tokens keep the positions that they were pretrained at; the virtual ones take the first of them again.
            real = torch.arange(length, device=input_ids.device)
            positions = torch.cat([real[:1], self.virtual_tokens, real[1:]])
            inputs["position_ids"] = (positions + self.family.first_position).unsqueeze(0)
        out = self.base_model(**inputs)
        for name in ("start_logits", "end_logits"):
            if name in out:
                out[name] = torch.cat([out[name][:, :1], out[name][:, n + 1 :]], dim=1)
        return out

    def save_pretrained(self, folder: str | Path) -> None:
        """Write PEFT's adapter_config.json, and the encoded virtual tokens and the head as safetensors."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        tensors = {"prompt_embeddings": self.prompt().detach().clone().contiguous()}
        for name in self.head:
            for key, tensor in self.base_model.get_submodule(name).state_dict().items():
                tensors[f"base_model.{name}.{key}"] = tensor.clone()
        save_file(tensors, Path(folder) / WEIGHTS)
        was, self.peft_config.inference_mode = self.peft_config.inference_mode, True
        self.peft_config.save_pretrained(str(folder))
        self.peft_config.inference_mode = was

    @classmethod
    def from_pretrained(
        cls, model: nn.Module, folder: str | Path, family: Family, task: str
    ) -> "PromptModel":
        """The model that `save_pretrained` wrote, on a fresh base; for inference only."""
        peft_config = PeftConfig.from_pretrained(str(folder))
        peft_config.inference_mode = True
        tensors = load_file(Path(folder) / WEIGHTS)
        prompt = tensors.pop("prompt_embeddings")
        self = cls(model, peft_config, family, task)
        # The encoder (an MLP, an LSTM) is training's scaffold: what it made of the virtual tokens is all that is kept.
        self.prompt_encoder = nn.Module()
        self.prompt_encoder.embedding = nn.Embedding.from_pretrained(prompt)
        for name in self.head:
            start = f"base_model.{name}."
            state = {key.removeprefix(start): t for key, t in tensors.items() if key.startswith(start)}
            model.get_submodule(name).load_state_dict(state)
        return self.requires_grad_(False).eval()


def complete(peft_config: PeftConfig, model: nn.Module) -> None:
    """Fill in the sizes that PEFT guesses from attribute names which not every architecture has."""
    config = model.config
    prefix = peft_config.peft_type == PeftType.PREFIX_TUNING
    peft_config.num_layers = config.num_hidden_layers
    peft_config.num_attention_heads = config.num_attention_heads
    peft_config.token_dim = config.hidden_size if prefix else model.get_input_embeddings().embedding_dim
    peft_config.num_transformer_submodules = 1
    if peft_config.encoder_hidden_size is None:
        peft_config.encoder_hidden_size = peft_config.token_dim
