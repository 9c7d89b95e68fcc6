"""What the suite must know about each model family, as data: a new family is a new row of FAMILIES."""

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Family:
    """Names and limits of one architecture, keyed by transformers' `config.model_type`.

    The module names are suffixes, as PEFT matches `target_modules`. An architecture whose query, key and value
    share one projection names that projection three times.
    """

    model_type: str
    query: str
    key: str
    value: str
    attention_output: str
    up: str
    down: str
    self_attention: str
    """Class-name suffix of the module that calls the attention function (prefix tuning reaches keys and values there)."""
    heads: dict[str, tuple[str, ...]]
    """Head → its modules, which every technique trains in full. A head is the end of transformers' class names, behind "For".
    A task is refused where its head is missing here."""
    kind: str = "encoder"
    """"encoder", "decoder" (each token sees those before it) or "encoder-decoder"."""
    gated: tuple[str, ...] = ()
    """Names of `up` where the feed-forward layer has two of them, one of which gates the other."""
    further: tuple[str, ...] = ()
    """Linear layers of a block beside these roles."""
    own_attention: bool = False
    """Whether its attention has code of its own instead of transformers' attention function: no prefix enters there, no batch
    can be packed, and the fast attention for CPUs (cpu_kernels.py) leaves it as it is."""
    global_question: bool = False
    """Whether tokens attend to their neighbours only, except for those of the question (or the first one of a text), which
    see everything and are seen by all (global_attention.py)."""
    length_first: bool = False
    """Whether its attention's layers take (length, batch, width); those of the others take (batch, length, width)."""
    overwrites_results: bool = False
    """Whether its attention changes the results of its linear layers in place."""
    conv1d: bool = False
    """Whether its layers are transformers' Conv1D, whose weights are (in, out); those of nn.Linear are (out, in)."""
    segment_ids: bool = False
    """Whether the architecture can distinguish question and context by `token_type_ids`."""
    first_position: int | None = 0
    """Position id of the first token; None where positions are relative and no ids exist."""
    refuses: dict[str, str] = field(default_factory=dict)
    """Technique → the reason why this family cannot do it."""

    def refusal(self, technique: str, head: str) -> str | None:
        """Why this family, with this head, cannot be trained by a technique; None if it can."""
        if technique == "head" and not self.heads[head]:
            return "the task has no head of its own"
        return self.refusal_of_all(technique)

    def refusal_of_all(self, technique: str) -> str | None:
        """Why this family cannot be trained by a technique, whatever the head; None if it can."""
        if technique == "prefix-tuning" and self.own_attention:
            return "its attention has code of its own, which a prefix cannot enter"
        return self.refuses.get(technique)

    def check_biases(self, setting: str) -> None:
        """UserError where a setting asks for the biases of the layers to be trained, and there are none."""
        if reason := self.refusal_of_all("bitfit"):
            raise UserError(f"{setting} does not work with {self.model_type}: {reason}; leave it out.")

    @property
    def linear_layers(self) -> list[str]:
        """Every linear layer of an encoder block."""
        roles = (self.query, self.key, self.value, self.attention_output, self.up, *self.gated, self.down)
        return list(dict.fromkeys(roles + self.further))

    @property
    def packs(self) -> bool:
        """Whether the windows of a batch can be laid end to end, each with its own positions and attention."""
        return self.kind == "encoder" and self.first_position is not None and not self.own_attention

    def matching(self, *names: str) -> str:
        """A regular expression, as PEFT takes one, for just these roles.

        As a suffix, BERT's "output.dense" (the feed-forward layer's) would name "attention.output.dense" too.
        """
        exact = []
        for name in dict.fromkeys(names):
            inside_attention = self.attention_output == f"attention.{name}"
            exact.append((r"(?<!attention\.)" if inside_attention else "") + re.escape(name))
        return rf".*\.({'|'.join(exact)})"


_BERT: dict[str, Any] = dict(
    query="query",
    key="key",
    value="value",
    attention_output="attention.output.dense",
    up="intermediate.dense",
    down="output.dense",
    self_attention="SelfAttention",
)

_ROBERTA: dict[str, Any] = _BERT | dict(
    heads={
        "QuestionAnswering": ("qa_outputs",),
        "SequenceClassification": ("classifier.dense", "classifier.out_proj"),
    },
    first_position=2,
)

_T5: dict[str, Any] = dict(
    kind="encoder-decoder",
    query="q",
    key="k",
    value="v",
    attention_output="o",
    up="wi",
    gated=("wi_0", "wi_1"),
    down="wo",
    heads={"QuestionAnswering": ("qa_outputs",), "Seq2SeqLM": ()},
    first_position=None,
)

_LLAMA: dict[str, Any] = dict(
    query="q_proj",
    key="k_proj",
    value="v_proj",
    attention_output="o_proj",
    up="up_proj",
    gated=("gate_proj", "up_proj"),
    down="down_proj",
)

_DECODER: dict[str, Any] = _LLAMA | dict(kind="decoder", heads={"CausalLM": ()})

_RELATIVE = "its attention builds keys from relative positions, and a prefix has no position"

NO_CONV1D = "PEFT's layers for it do not support Conv1D, the type of all its layers"

_NO_BIASES = "its layers have no biases"

_PROMPTS = ("prompt-encoder", "prompt-tuning")
"""Techniques with virtual tokens in the input."""

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family(
            "bert",
            **_BERT,
            heads={
                "QuestionAnswering": ("qa_outputs",),
                "SequenceClassification": ("bert.pooler.dense", "classifier"),
            },
            segment_ids=True,
        ),
        Family("roberta", **_ROBERTA),
        Family("xlm-roberta", **_ROBERTA),
        Family("camembert", **_ROBERTA),
        Family(
            "electra",
            **_BERT,
            heads={
                "QuestionAnswering": ("qa_outputs",),
                "SequenceClassification": ("classifier.dense", "classifier.out_proj"),
            },
            segment_ids=True,
        ),
        # All blocks share the weights of one, and so they share what a technique adds to it.
        Family(
            "albert",
            query="attention.query",
            key="attention.key",
            value="attention.value",
            attention_output="attention.dense",
            up="ffn",
            down="ffn_output",
            self_attention="AlbertAttention",
            heads={
                "QuestionAnswering": ("qa_outputs",),
                "SequenceClassification": ("albert.pooler", "classifier"),
            },
            segment_ids=True,
            refuses={
                "top-layers": "its blocks share their weights: training the last one trains all of them"
            },
        ),
        Family(
            "mpnet",
            query="attn.q",
            key="attn.k",
            value="attn.v",
            attention_output="attn.o",
            up="intermediate.dense",
            down="output.dense",
            self_attention="SelfAttention",
            heads=_ROBERTA["heads"],
            first_position=2,
            own_attention=True,
        ),
        Family(
            "longformer",
            **_ROBERTA,
            further=("query_global", "key_global", "value_global"),
            own_attention=True,
            global_question=True,
            length_first=True,
            overwrites_results=True,
            refuses=dict.fromkeys(
                _PROMPTS,
                "which tokens see the whole input follows from token ids, and virtual tokens have none",
            ),
        ),
        Family(
            "distilbert",
            query="q_lin",
            key="k_lin",
            value="v_lin",
            attention_output="out_lin",
            up="ffn.lin1",
            down="ffn.lin2",
            self_attention="SelfAttention",
            heads={
                "QuestionAnswering": ("qa_outputs",),
                "SequenceClassification": ("pre_classifier", "classifier"),
            },
        ),
        Family(
            "deberta-v2",
            **{**_BERT, "query": "query_proj", "key": "key_proj", "value": "value_proj"},
            heads={
                "QuestionAnswering": ("qa_outputs",),
                "SequenceClassification": ("pooler.dense", "classifier"),
            },
            segment_ids=True,
            first_position=None,
            refuses={"prefix-tuning": _RELATIVE},
        ),
        Family(
            "modernbert",
            query="attn.Wqkv",
            key="attn.Wqkv",
            value="attn.Wqkv",
            attention_output="attn.Wo",
            up="mlp.Wi",
            down="mlp.Wo",
            self_attention="ModernBertAttention",
            heads={
                "QuestionAnswering": ("head.dense", "head.norm", "classifier"),
                "SequenceClassification": ("head.dense", "head.norm", "classifier"),
            },
            first_position=None,
            refuses={"bitfit": _NO_BIASES},
        ),
        Family(
            "gpt2",
            kind="decoder",
            query="attn.c_attn",
            key="attn.c_attn",
            value="attn.c_attn",
            attention_output="attn.c_proj",
            up="mlp.c_fc",
            down="mlp.c_proj",
            self_attention="GPT2Attention",
            heads={"QuestionAnswering": ("qa_outputs",), "CausalLM": ()},
            conv1d=True,
            refuses=dict.fromkeys(("loha", "lokr", "oft", "boft"), NO_CONV1D),
        ),
        Family(
            "eurobert",
            **_LLAMA,
            self_attention="EuroBertAttention",
            heads={"SequenceClassification": ("dense", "classifier")},
            first_position=None,
            refuses={"bitfit": _NO_BIASES},
        ),
        Family("llama", **_DECODER, self_attention="LlamaAttention", refuses={"bitfit": _NO_BIASES}),
        Family("qwen2", **_DECODER, self_attention="Qwen2Attention"),
        Family("qwen3", **_DECODER, self_attention="Qwen3Attention", refuses={"bitfit": _NO_BIASES}),
        Family("gemma", **_DECODER, self_attention="GemmaAttention", refuses={"bitfit": _NO_BIASES}),
        Family(
            "gemma3_text",
            **_DECODER,
            self_attention="Gemma3Attention",
            refuses={"bitfit": _NO_BIASES}
            | dict.fromkeys(
                _PROMPTS,
                "most of its blocks see the latest words only, and padding would part these from virtual tokens",
            ),
        ),
        Family(
            "bart",
            kind="encoder-decoder",
            query="q_proj",
            key="k_proj",
            value="v_proj",
            attention_output="out_proj",
            up="fc1",
            down="fc2",
            self_attention="BartAttention",
            heads={"QuestionAnswering": ("qa_outputs",), "Seq2SeqLM": ()},
            refuses=dict.fromkeys(
                _PROMPTS,
                "its encoder takes no position ids, so that virtual tokens would move those of real ones",
            ),
        ),
        Family("mt5", **_T5, self_attention="MT5Attention", refuses={"bitfit": _NO_BIASES}),
        Family("t5", **_T5, self_attention="T5Attention", refuses={"bitfit": _NO_BIASES}),
    )
}


def family_of(model_type: str) -> Family:
    """The row for a `config.model_type`; UserError names the supported families if there is none."""
    try:
        return FAMILIES[model_type]
    except KeyError:
        known = ", ".join(sorted(FAMILIES))
        raise UserError(
            f"Models of type {model_type!r} are not supported (supported: {known}). "
            "Choose another --model_checkpoint, or add a row to common/models/families.py."
        ) from None


def uses_segment_ids(config: "PreTrainedConfig", tokenizer: "PreTrainedTokenizerBase | None" = None) -> bool:
    """Whether a model with this config distinguishes question and context by `token_type_ids`.

    tokenizer: decides for a model of no family here (`foreign.py`); its `model_input_names` are what the model takes.
    """
    if tokenizer is not None and config.model_type not in FAMILIES:
        return "token_type_ids" in tokenizer.model_input_names
    return family_of(config.model_type).segment_ids and getattr(config, "type_vocab_size", 0) > 1


def usable_positions(config: "PreTrainedConfig") -> int | None:
    """The longest input in tokens, or None where positions are relative and set no limit."""
    family = family_of(config.model_type)
    if family.first_position is None:
        # A DeBERTa need not have the table that this field is the size of.
        has_table = getattr(config, "position_biased_input", True)
        return getattr(config, "max_position_embeddings", None) if has_table else None
    return config.max_position_embeddings - family.first_position


def auto_class(head: str) -> Any:
    """transformers' auto class with a head."""
    import transformers

    return getattr(transformers, f"AutoModelFor{head}")


def saved_head(config: "PreTrainedConfig") -> str:
    """The head of a saved model, whose config names its class; UserError where its family has no such class."""
    for head in family_of(config.model_type).heads:
        if [auto_class(head)._model_mapping[type(config)].__name__] == config.architectures:
            return head
    raise UserError(f"The suite does not train {config.architectures}, the class in the model's config.json.")
