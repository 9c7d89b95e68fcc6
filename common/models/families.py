"""What the suite must know about each model family, as data: a new family is a new row of FAMILIES."""

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


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
    conv1d: bool = False
    """Whether its layers are transformers' Conv1D, whose weights are (in, out); those of nn.Linear are (out, in)."""
    segment_ids: bool = False
    """Whether the architecture can distinguish question and context by `token_type_ids`."""
    first_position: int | None = 0
    """Position id of the first token; None where positions are relative and no ids exist."""
    refuses: dict[str, str] = field(default_factory=dict)
    """Technique, or "technique head" → the reason why this family cannot do it."""

    def refusal(self, technique: str, head: str) -> str | None:
        """Why this family, with this head, cannot be trained by a technique; None if it can."""
        if technique == "head" and not self.heads[head]:
            return "the task has no head of its own"
        return self.refuses.get(f"{technique} {head}") or self.refuses.get(technique)

    @property
    def linear_layers(self) -> list[str]:
        """Every linear layer of an encoder block."""
        roles = (self.query, self.key, self.value, self.attention_output, self.up, *self.gated, self.down)
        return list(dict.fromkeys(roles))

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

_RELATIVE = "its attention builds keys from relative positions, and a prefix has no position"

_NO_CONV1D = "PEFT's layers for it do not support Conv1D, the type of all its layers"

_NO_BIASES = "its layers have no biases"

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
        Family(
            "roberta",
            **_BERT,
            heads={
                "QuestionAnswering": ("qa_outputs",),
                "SequenceClassification": ("classifier.dense", "classifier.out_proj"),
            },
            first_position=2,
        ),
        Family(
            "electra",
            **_BERT,
            heads={
                "QuestionAnswering": ("qa_outputs",),
                "SequenceClassification": ("classifier.dense", "classifier.out_proj"),
            },
            segment_ids=True,
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
            refuses=dict.fromkeys(("loha", "lokr", "oft", "boft"), _NO_CONV1D),
        ),
        Family(
            "t5",
            kind="encoder-decoder",
            query="q",
            key="k",
            value="v",
            attention_output="o",
            up="wi",
            gated=("wi_0", "wi_1"),
            down="wo",
            self_attention="T5Attention",
            heads={"QuestionAnswering": ("qa_outputs",), "Seq2SeqLM": ()},
            first_position=None,
            refuses={"bitfit": _NO_BIASES},
        ),
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


def uses_segment_ids(config: "PreTrainedConfig") -> bool:
    """Whether a model with this config distinguishes question and context by `token_type_ids`."""
    return family_of(config.model_type).segment_ids and getattr(config, "type_vocab_size", 0) > 1


def usable_positions(config: "PreTrainedConfig") -> int | None:
    """The longest input in tokens, or None where positions are relative and set no limit."""
    family = family_of(config.model_type)
    if family.first_position is None:
        return None if config.model_type == "deberta-v2" else getattr(config, "max_position_embeddings", None)
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
