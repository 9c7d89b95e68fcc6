"""Trained models of any family that transformers knows, also of those that are not trained here: their config, their
tokenizer and their weights say what answering with them needs."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..errors import UserError, first_line
from .base import Checkpoint, load_base, load_config, load_tokenizer, read_weights
from .families import FAMILIES, auto_class, usable_positions

OUTPUTS = {"QuestionAnswering": ("start_logits", "end_logits"), "SequenceClassification": ("logits",)}
"""Head → what a model with it must give."""

TEXTS = ("a b c", "d e f g h i j k l m n o p q r s t")
"""Two texts of different lengths."""

NO_LIMIT = 10**9
"""From here on a tokenizer's `model_max_length` stands for "not known"."""

TOLERANCE = dict(atol=1e-4, rtol=1e-3)
"""Differences between logits that rounding explains."""


def heads(config: PreTrainedConfig) -> list[str]:
    """The heads of OUTPUTS that the class of a saved model is; none for a class of another kind."""
    built = str((config.architectures or ["nothing"])[0])
    return [head for head in OUTPUTS if built in _classes(config, head)]


def _classes(config: PreTrainedConfig, head: str) -> dict[str, type[PreTrainedModel]]:
    found = auto_class(head)._model_mapping.get(type(config), ())
    return {kind.__name__: kind for kind in (found if isinstance(found, tuple) else (found,))}


def load(
    checkpoint: Checkpoint, head: str, longest: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, int]:
    """(trained model with a head, in float32; its tokenizer; the longest input in tokens, at most `longest`).

    UserError where a weight is missing, or where a model of no family of this project does not answer alike whatever its
    input is padded to.
    """
    config = load_config(checkpoint)
    family = FAMILIES.get(config.model_type)
    if family is not None and head in family.heads:
        model, tokenizer = load_base(checkpoint, head, trained_head=True)
        return model, tokenizer, min(longest, usable_positions(model.config) or longest)
    tokenizer = load_tokenizer(checkpoint)
    (kind,) = _classes(config, head).values()
    taken = inspect.signature(kind.forward).parameters
    if "attention_mask" not in taken:
        raise UserError(
            f"{checkpoint.name} is a {kind.__name__}, which takes no attention mask: it would read padding."
        )
    tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name in taken]
    tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names
    model, report = read_weights(checkpoint, head)
    _check_complete(checkpoint.name, model, report, head)
    if model.config.pad_token_id is None:
        # Decoders look for the last token before padding.
        model.config.pad_token_id = tokenizer.pad_token_id
    length = min([longest, *limits(model, tokenizer)])
    _check_answers(checkpoint.name, model.eval(), tokenizer, head, length)
    return model, tokenizer, length


def _check_complete(name: str, model: PreTrainedModel, report: Mapping[str, Any], head: str) -> None:
    """No weight may be new, except those of a pooler, which spans do not come from."""
    new = {tensor for tensor, _ in model.named_parameters()} & set(report["missing_keys"])
    new |= {tensor for tensor, *_ in report["mismatched_keys"]}
    spans = head == "QuestionAnswering"
    if lacking := sorted(tensor for tensor in new if not (spans and ".pooler." in tensor)):
        raise UserError(
            f"{name}: its weights lack {len(lacking)} of the model's tensors, for example {lacking[0]}: name a trained model."
        )


def limits(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Iterable[int]:
    """The limits of an input's length that the tokenizer and the config state, in tokens."""
    if tokenizer.model_max_length < NO_LIMIT:
        yield tokenizer.model_max_length
    positions = getattr(model.config, "max_position_embeddings", None) or 0
    if positions > 0:
        # Where a row of the table stands for padding, positions count from the one behind it.
        tables = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
        unused = [
            table.padding_idx + 1 for table in tables if getattr(table, "padding_idx", None) is not None
        ]
        yield positions - max(unused, default=0)


def _check_answers(
    name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, head: str, length: int
) -> None:
    """UserError where a text gets other logits beside a longer one than alone, or an input of `length` tokens none."""
    pair = head == "QuestionAnswering"

    def encoded(text: str, **settings: Any) -> Mapping[str, list[int]]:
        texts = (TEXTS[0], text) if pair else (text,)
        return tokenizer(*texts, return_token_type_ids=True, **settings)

    def logits(*rows: Mapping[str, list[int]]) -> torch.Tensor:
        most = max(len(row["input_ids"]) for row in rows)
        fill = {"input_ids": tokenizer.pad_token_id}
        batch = {
            key: torch.tensor(
                [row[key] + [fill.get(key, 0)] * (most - len(row["input_ids"])) for row in rows]
            )
            for key in tokenizer.model_input_names
        }
        out = model(**batch)
        return torch.stack([out[output] for output in OUTPUTS[head]])

    short, longer = map(encoded, TEXTS)
    try:
        with torch.inference_mode():
            alone, beside = logits(short), logits(short, longer)[:, :1]
            logits(encoded("a " * length, truncation="only_second" if pair else True, max_length=length))
    except Exception as error:
        # Code of any model, given what it may not be made for.
        raise UserError(
            f"{name} is a {type(model).__name__}, which cannot be asked about the tokens of a text alone "
            f"({type(error).__name__}: {first_line(error)})."
        ) from None
    if pair:
        beside = beside[..., : alone.shape[-1]]
    if not torch.allclose(alone, beside, **TOLERANCE):
        raise UserError(
            f"{name} is a {type(model).__name__}, whose answers depend on how far its input is padded: they cannot be computed "
            "in batches."
        )
