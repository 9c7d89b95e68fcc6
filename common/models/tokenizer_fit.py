"""Whether a tokenizer belongs to its model."""

from typing import TYPE_CHECKING

from ..errors import UserError
from .families import FAMILIES

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

LEAST_USED = 0.75
"""Share of the embedding's rows that must belong to a token. Tables are padded to a round number, by a few percent, or to a
power of two; the tokenizer of another model (30,522 tokens for 50,265 rows) leaves more rows unused."""


def check_fit(tokenizer: "PreTrainedTokenizerBase", config: "PreTrainedConfig", name: str) -> None:
    """UserError where a tokenizer cannot belong to the model with this config, whatever the data. name: the checkpoint's."""
    vocabulary = tokenizer.get_vocab()
    special = set(tokenizer.all_special_tokens)
    if not any(character.isalnum() for token in vocabulary.keys() - special for character in token):
        raise unfit(
            name,
            f"there is no tokenizer beside the weights, or an empty one ({len(vocabulary)} tokens and no word among them)",
            "Copy the tokenizer's files (tokenizer.json, tokenizer_config.json or the vocabulary) into it.",
        )
    family = FAMILIES.get(config.model_type)
    size = max(vocabulary.values()) + 1
    rows = getattr(config, "vocab_size", size)
    if size > rows:
        raise unfit(
            name,
            f"its tokenizer has {size:,} tokens, its embedding {rows:,} rows",
            "Use the tokenizer that the model was trained with, or resize_token_embeddings and save both.",
        )
    if size < LEAST_USED * rows:
        raise unfit(
            name,
            f"its tokenizer has {size:,} tokens, but its embedding has {rows:,} rows: it belongs to another model",
            "Use the tokenizer that the model was trained with.",
        )
    if tokenizer.pad_token_id is None:
        raise unfit(name, "its tokenizer has no padding token", "Set pad_token in its tokenizer_config.json.")
    if family is None:
        # What stands around its texts is for whoever trained it to decide.
        return
    added = tokenizer("a", "a", return_special_tokens_mask=True)["special_tokens_mask"]
    if not any(added) or (family.kind == "encoder" and not added[0]):
        raise unfit(
            name,
            f"its tokenizer puts no special token {'before a text' if any(added) else 'between question and context'}",
            "Save it with the post-processor of its family's tokenizers.",
        )
    if family.first_position and tokenizer.pad_token_id != config.pad_token_id:
        # These models count positions from the padding tokens in their input.
        raise unfit(
            name,
            f"its tokenizer pads with token {tokenizer.pad_token_id}, its config says {config.pad_token_id}",
            "Set pad_token_id in its config.json, or use the tokenizer that the model was trained with.",
        )


def unfit(name: str, wrong: str, remedy: str) -> UserError:
    """The error for a checkpoint's tokenizer: what is wrong, and the remedy."""
    return UserError(f"--model_checkpoint {name}: {wrong}. {remedy}")
