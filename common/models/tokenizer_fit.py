"""Whether a tokenizer is that of its model."""

from ..errors import UserError
from .families import family_of

LEAST_USED = 0.75
"""Share of the embedding's rows that must belong to a token. Tables are padded to a round number, by a few percent, or to a
power of two; a tokenizer of another model (30,522 tokens for 50,265 rows) leaves more of it idle."""


def check_fit(tokenizer, config, name: str) -> None:
    """UserError where a tokenizer, whatever the data, cannot be that of the model with this config; name: the checkpoint's."""
    vocabulary = tokenizer.get_vocab()
    special = set(tokenizer.all_special_tokens)
    if not any(character.isalnum() for token in vocabulary.keys() - special for character in token):
        raise unfit(
            name,
            f"there is no tokenizer beside the weights, or an empty one ({len(vocabulary)} tokens, none of which is a word)",
            "Copy the tokenizer's files (tokenizer.json, tokenizer_config.json or the vocabulary) into it.",
        )
    rows, size = config.vocab_size, max(vocabulary.values()) + 1
    if size > rows:
        raise unfit(
            name,
            f"its tokenizer has {size:,} tokens, its embedding {rows:,} rows",
            "Use the tokenizer that the model was trained with, or resize_token_embeddings and save both.",
        )
    if size < LEAST_USED * rows:
        raise unfit(
            name,
            f"its tokenizer has {size:,} tokens, but its embedding has {rows:,} rows: it is another model's",
            "Use the tokenizer that the model was trained with.",
        )
    if tokenizer.pad_token_id is None:
        raise unfit(name, "its tokenizer has no padding token", "Set pad_token in its tokenizer_config.json.")
    family = family_of(config.model_type)
    added = tokenizer("a", "a", return_special_tokens_mask=True)["special_tokens_mask"]
    if not any(added) or (family.kind == "encoder" and not added[0]):
        raise unfit(
            name,
            f"its tokenizer puts no special token {'before a text' if any(added) else 'between question and context'}",
            "Save it with the post-processor that tokenizers of its family have.",
        )
    if family.first_position and tokenizer.pad_token_id != config.pad_token_id:
        # These models count positions from the padding that they see.
        raise unfit(
            name,
            f"its tokenizer pads with token {tokenizer.pad_token_id}, its config says {config.pad_token_id}",
            "Set pad_token_id in its config.json, or use the tokenizer that the model was trained with.",
        )


def unfit(name: str, wrong: str, remedy: str) -> UserError:
    """What is wrong with a checkpoint's tokenizer, and the remedy."""
    return UserError(f"--model_checkpoint {name}: {wrong}. {remedy}")
