"""Prefix tuning, P-tuning and prompt tuning with PEFT's parameters and without PEFT's forward pass.

PEFT's own forward drops the segment ids, leaves the answer labels where they were although the virtual tokens moved
the logits, moves the position ids of the real tokens and ignores those that padding on the left needs, and needs
`past_key_values`, which encoders such as DistilBERT do not have. Here virtual tokens never appear in the logits, so
labels, offsets and decoding see only the real input; real tokens keep their position and segment ids; and prefixes
enter at the attention function, which every model of the `transformers` attention interface calls.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftType, PrefixTuningConfig
from peft.tuners import PrefixEncoder, PromptEmbedding, PromptEncoder
from peft.tuners.prompt_tuning import PromptTuningInit
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig
from transformers.masking_utils import sdpa_mask
from transformers.modeling_outputs import ModelOutput

from .cpu_kernels import attention
from .families import Family

ATTENTION = f"sdpa_with_prefix_{__package__}"
"""Each stored copy of this package registers its own name, as in cpu_kernels.py."""
REFUSED = "{} as this suite computes it (load it with the code of its stored model): PEFT's own forward answers otherwise"
"""Replaces PEFT's type in the config of a saved adapter, so that the error that PEFT raises shows it."""
OWN_TYPE = "prompt_type"
"""Field of that config that holds the type."""
PREFIX_STD = 0.1
"""Standard deviation of the untrained prefix; PEFT uses 1. docs/RESULTS.md lists what was tried."""
GATED_STDS = 1.5, 0.5
"""Standard deviations of the untrained keys and values behind gates. Closed gates let nothing through, so keys can have the
size of a model's own from the start (1.3 to 1.6 in the packaged one): only then does it depend on the query which of them it
sees."""


@dataclass
class PrefixConfig(PrefixTuningConfig):
    """PEFT's config of prefix tuning and what PEFT lacks. The defaults are those of adapters saved without these fields."""

    gating: bool = False
    """Whether a prefix is attended to by a softmax of its own, whose result is added to the attention's, times a trained
    gate for each layer and key head that starts at zero (Zhang et al., 2023, https://arxiv.org/abs/2303.16199)."""
    prefix_dropout: float = 0.0
    """Share of the prefix's values that a training step leaves out, as in P-tuning v2 (Liu et al., 2021)."""
    prefix_scale: float = 1.0
    """Factor between the trained values and the prefix. Steps of AdamW have the size of the learning rate whatever the
    gradient, so this is how many times faster than the head and the gates the prefix moves."""


def attention_with_prefix(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    prefix: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Scaled dot-product attention in which every query also sees this layer's trained keys and values.

    query, key, value: (batch, heads, length, head_dim); prefix: (layers, 2, heads, virtual tokens, head_dim).
    position_bias: (1, heads, length, length), T5's; a prefix has no position and gets no bias.
    """
    if prefix is not None and module.prefix_gated:
        attended, weights = attention(
            module, query, key, value, attention_mask, position_bias=position_bias, **kwargs
        )
        keys, values = prefix[module.prefix_layer].expand(query.shape[0], -1, -1, -1, -1).unbind(1)
        # Not the attention's own dropout: that of a prefix is applied to its values, once for the whole batch.
        # Several query heads share a key head where the model groups them, in the prefix as in the model's own keys.
        steered = nn.functional.scaled_dot_product_attention(
            query, keys, values, scale=kwargs.get("scaling"), enable_gqa=query.shape[1] != keys.shape[1]
        )
        return attended + steered.transpose(1, 2), weights
    if prefix is not None:
        before, length = prefix.shape[-2], key.shape[-2]
        if attention_mask is None and getattr(module, "is_causal", False) and query.shape[-2] > 1:
            # The function's own causal mask counts keys from the first one, which here belongs to the prefix.
            attention_mask = torch.ones(query.shape[-2], length, dtype=torch.bool, device=query.device)
            attention_mask = attention_mask.tril(length - query.shape[-2])[None, None]
        keys, values = prefix[module.prefix_layer].expand(key.shape[0], -1, -1, -1, -1).unbind(1)
        key, value = torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2)
        if attention_mask is not None:
            seen = True if attention_mask.dtype == torch.bool else 0.0
            attention_mask = nn.functional.pad(attention_mask, (before, 0), value=seen)
        if position_bias is not None:
            position_bias = nn.functional.pad(position_bias, (before, 0), value=0.0)
    return attention(module, query, key, value, attention_mask, position_bias=position_bias, **kwargs)


AttentionInterface.register(ATTENTION, attention_with_prefix)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


class PromptModel(nn.Module):
    """A frozen model, its head, and the virtual tokens that steer it.

    The head and PEFT's encoder of the virtual tokens are trained (Li & Liang 2021 for prefixes; Liu et al. 2021 for
    prompts). `forward` answers as the base model does: logits of tokens have the length of the input, and labels count
    from its first token.
    """

    def __init__(self, model: nn.Module, peft_config: PeftConfig, family: Family, head: str):
        super().__init__()
        self.is_prefix = isinstance(peft_config, PrefixTuningConfig)
        if self.is_prefix and not isinstance(peft_config, PrefixConfig):
            peft_config = PrefixConfig.from_peft_type(**without_type(peft_config.to_dict()))
        complete(peft_config, model, family)
        self.peft_config, self.family, self.head = peft_config, family, family.heads[head]
        self.base_model = model.requires_grad_(False)
        for name in self.head:
            model.get_submodule(name).requires_grad_(True)
        self.prompt_encoder = encoder(peft_config, model)
        self.register_buffer("virtual_tokens", torch.arange(peft_config.num_virtual_tokens), persistent=False)
        if self.is_prefix:
            self._prepare(peft_config)
            for i, layer in enumerate(attention_layers(model, family)):
                layer.prefix_layer, layer.prefix_gated = i, peft_config.gating
            for module in model.modules():
                # Each half of an encoder-decoder has its own config.
                if hasattr(module, "config"):
                    module.config._attn_implementation = ATTENTION

    def _prepare(self, c: PrefixConfig) -> None:
        """The untrained prefix and its gates."""
        if not c.prefix_projection and c.init_weights is None:
            weight = self.prompt_encoder.embedding.weight
            nn.init.normal_(weight, std=PREFIX_STD / c.prefix_scale)
            if c.gating:
                sizes = torch.tensor(GATED_STDS).unsqueeze(-1) / PREFIX_STD
                weight.data.view(len(weight), c.num_layers, 2, -1).mul_(sizes)
        self.prefix_dropout = nn.Dropout(c.prefix_dropout)
        if c.gating and not c.inference_mode:
            self.prompt_encoder.gates = nn.Parameter(torch.zeros(c.num_layers, c.num_attention_heads))

    @property
    def config(self) -> PreTrainedConfig:
        return self.base_model.config

    def prompt(self) -> torch.Tensor:
        """The encoded virtual tokens: (virtual tokens, 2 * layers * hidden) or (virtual tokens, embedding)."""
        c = self.peft_config
        if c.inference_mode:
            return self.prompt_encoder.embedding.weight
        prompt = self.prompt_encoder(self.virtual_tokens.unsqueeze(0))[0]
        if not self.is_prefix:
            return prompt
        prompt = prompt * c.prefix_scale
        if not c.gating:
            return prompt
        # A gate multiplies what its head makes of the prefix, which is linear in the values.
        keys, values = prompt.view(len(prompt), c.num_layers, 2, c.num_attention_heads, -1).unbind(2)
        gated = values * torch.tanh(self.prompt_encoder.gates).unsqueeze(-1)
        return torch.stack([keys, gated], dim=2).view(prompt.shape)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        **inputs: Any,
    ) -> ModelOutput:
        """The base model's output; input_ids, attention_mask, token_type_ids, position_ids: (batch, length)."""
        optional = {"token_type_ids": token_type_ids, "position_ids": position_ids}
        given = {name: ids for name, ids in optional.items() if ids is not None}
        if self.is_prefix:
            return self.base_model(
                input_ids=input_ids, attention_mask=attention_mask, prefix=self.prefix(), **given, **inputs
            )
        prompted, kept = self._prompted(input_ids, attention_mask, **given)
        if self.family.kind == "encoder-decoder" and "qa_outputs" in self.head:
            # Answers are decoded where the decoder reads the input a second time.
            inputs["decoder_input_ids"], kept = self.base_model._shift_right(input_ids), slice(None)
        out = self.base_model(**prompted, **inputs)
        for name in ("start_logits", "end_logits"):
            if name in out:
                out[name] = out[name][:, kept]
        return out

    @torch.no_grad()
    def generate(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **settings: Any
    ) -> torch.Tensor:
        """The ids that the base model's `generate` gives: a decoder's new tokens follow `input_ids`.

        input_ids, attention_mask: (batch, length).
        """
        decoder = self.family.kind == "decoder"
        if not self.is_prefix:
            positions = {"position_ids": real_positions(attention_mask)} if decoder else {}
            prompted, _ = self._prompted(input_ids, attention_mask, **positions)
            new = self.base_model.generate(**prompted, **settings)
            return torch.cat([input_ids, new], dim=1) if decoder else new
        prefix = self.prefix()
        # `generate` takes no argument for the attention function.
        hooks = [
            layer.register_forward_pre_hook(
                lambda _, args, kwargs: (args, kwargs | {"prefix": prefix}), with_kwargs=True
            )
            for layer in attention_layers(self.base_model, self.family)
        ]
        try:
            return self.base_model.generate(input_ids=input_ids, attention_mask=attention_mask, **settings)
        finally:
            for hook in hooks:
                hook.remove()

    def prefix(self) -> torch.Tensor:
        """Keys and values: (layers, 2, heads, virtual tokens, head_dim)."""
        c = self.peft_config
        shape = (c.num_virtual_tokens, c.num_layers, 2, c.num_attention_heads, -1)
        prefix = self.prefix_dropout(self.prompt())
        return prefix.view(shape).permute(1, 2, 3, 0, 4).to(self.base_model.dtype)

    def _prompted(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """(the base model's inputs, indices of the real tokens in them).

        An encoder's virtual tokens stand behind the first token, because classification reads the state of the first one.
        Those of other models stand in front, where every token sees them in spite of causal attention.
        """
        embedded = self.base_model.get_input_embeddings()(input_ids)
        batch, length = input_ids.shape
        prompt = self.prompt().to(embedded.dtype).expand(batch, -1, -1)
        n, first = prompt.shape[1], int(self.family.kind == "encoder")
        real = torch.arange(length, device=input_ids.device)

        def widened(ids: torch.Tensor, value: int) -> torch.Tensor:
            return torch.cat([ids[:, :first], nn.functional.pad(ids[:, first:], (n, 0), value=value)], dim=1)

        inputs = {
            "inputs_embeds": torch.cat([embedded[:, :first], prompt, embedded[:, first:]], dim=1),
            "attention_mask": widened(attention_mask, 1),
        }
        if token_type_ids is not None:
            inputs["token_type_ids"] = widened(token_type_ids, 0)
        if self.family.first_position is not None:
            # Real tokens keep the positions of their pretraining; the virtual ones share the first of these.
            positions = real.unsqueeze(0) if position_ids is None else position_ids
            virtual = self.virtual_tokens.expand(len(positions), -1)
            positions = torch.cat([positions[:, :first], virtual, positions[:, first:]], dim=1)
            inputs["position_ids"] = positions + self.family.first_position
        return inputs, torch.where(real < first, real, real + n)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write adapter_config.json, and the encoded virtual tokens and the head as safetensors.

        The config is PEFT's except for the type: PEFT must refuse the adapter, because it would answer differently.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        tensors = {"prompt_embeddings": self.prompt().detach().clone().contiguous()}
        for name in self.head:
            for key, tensor in self.base_model.get_submodule(name).state_dict().items():
                tensors[f"base_model.{name}.{key}"] = tensor.clone()
        save_file(tensors, Path(folder) / SAFETENSORS_WEIGHTS_NAME)
        was, self.peft_config.inference_mode = self.peft_config.inference_mode, True
        self.peft_config.save_pretrained(str(folder))
        self.peft_config.inference_mode = was
        file = Path(folder) / CONFIG_NAME
        config = json.loads(file.read_text())
        kind = config["peft_type"]
        config |= {"peft_type": REFUSED.format(kind), OWN_TYPE: kind}
        file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")

    @classmethod
    def from_pretrained(
        cls, model: nn.Module, folder: str | Path, family: Family, head: str
    ) -> "PromptModel":
        """The model that `save_pretrained` wrote, on a fresh base; for inference only."""
        peft_config = read_config(Path(folder))
        peft_config.inference_mode = True
        tensors = load_file(Path(folder) / SAFETENSORS_WEIGHTS_NAME)
        prompt = tensors.pop("prompt_embeddings")
        self = cls(model, peft_config, family, head)
        # The encoder (an MLP, an LSTM) serves training alone: only its output for the virtual tokens is kept.
        self.prompt_encoder = nn.Module()
        self.prompt_encoder.embedding = nn.Embedding.from_pretrained(prompt)
        for name in self.head:
            start = f"base_model.{name}."
            state = {key.removeprefix(start): t for key, t in tensors.items() if key.startswith(start)}
            model.get_submodule(name).load_state_dict(state)
        return self.requires_grad_(False).eval()


def encoder(peft_config: PeftConfig, model: nn.Module) -> nn.Module:
    """PEFT's module that makes the virtual tokens."""
    match peft_config.peft_type:
        case PeftType.PREFIX_TUNING:
            return PrefixEncoder(peft_config)
        case PeftType.PROMPT_TUNING:
            words = model.get_input_embeddings()
            prompt = PromptEmbedding(peft_config, words)
            if peft_config.prompt_tuning_init == PromptTuningInit.RANDOM:
                # PEFT's values have a standard deviation of 1, twenty times that of the embeddings of a BERT.
                nn.init.normal_(prompt.embedding.weight, std=words.weight.std().item())
            return prompt
    return PromptEncoder(peft_config)


def read_config(adapter: Path) -> PeftConfig:
    """The config of a saved adapter, also of virtual tokens that earlier versions saved with PEFT's own type."""
    config = json.loads((adapter / CONFIG_NAME).read_text())
    kind = config.pop(OWN_TYPE, config["peft_type"])
    if kind == PeftType.PREFIX_TUNING:
        return PrefixConfig.from_peft_type(**without_type(config))
    return PeftConfig.from_peft_type(**config | {"peft_type": kind})


def without_type(config: dict[str, Any]) -> dict[str, Any]:
    """The fields of a config but its type, by which PEFT would choose a class of its own."""
    return {name: value for name, value in config.items() if name != "peft_type"}


def opened(model: nn.Module, adapter: Path, family: Family, head: str) -> PromptModel:
    """A base with the virtual tokens of a saved adapter, for inference."""
    return PromptModel.from_pretrained(model, adapter, family, head)


def attention_layers(model: nn.Module, family: Family) -> list[nn.Module]:
    """The modules that call the attention function."""
    return [m for m in model.modules() if type(m).__name__.endswith(family.self_attention)]


def real_positions(attention_mask: torch.Tensor) -> torch.Tensor:
    """(batch, length) positions, counted from each row's first token that is not padding."""
    return (attention_mask.cumsum(1) - 1).clamp(min=0)


def complete(peft_config: PeftConfig, model: nn.Module, family: Family) -> None:
    """Fill in the sizes that PEFT guesses from attribute names, which some architectures lack."""
    config = model.config
    # Several heads of queries may share one of keys and values, where the prefix enters.
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    peft_config.num_layers = len(attention_layers(model, family))
    peft_config.num_attention_heads = heads
    if peft_config.peft_type == PeftType.PREFIX_TUNING:
        # The heads of T5, mT5 and Gemma need not add up to their hidden size.
        size = getattr(config, "d_kv", None) or getattr(config, "head_dim", None)
        peft_config.token_dim = heads * (size or config.hidden_size // config.num_attention_heads)
    else:
        peft_config.token_dim = model.get_input_embeddings().embedding_dim
    peft_config.num_transformer_submodules = 1
    if getattr(peft_config, "encoder_hidden_size", 0) is None:
        peft_config.encoder_hidden_size = peft_config.token_dim
