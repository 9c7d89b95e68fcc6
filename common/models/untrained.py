"""Small generating models with random weights, for machines without a model hub: they show that a study runs, not how
good its techniques are."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from ..atomic import atomic_write
from ..errors import UserError
from ..paths import SAMPLE
from .bundles import quietly

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

PREFIX = "untrained-"
KINDS = ("gpt2", "t5")


def make(name: str, folder: Path) -> Path:
    """The folder below `folder` that holds `untrained-gpt2` or `untrained-t5`, made if there is none.

    Both read 1,024 tokens and have two layers of size 64; their tokenizer is trained on the packaged sample. Weights
    and ids are the same each time.
    """
    kind = name.removeprefix(PREFIX)
    if kind not in KINDS:
        raise UserError(
            f"model_checkpoint {name}: choose {' or '.join(PREFIX + known for known in KINDS)}, or a trained one."
        )
    made = Path(folder) / name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{name}.lock"):
        if not made.is_dir():
            with atomic_write(made) as part:
                _write(kind, part)
    return made


def _write(kind: str, folder: Path) -> None:
    import torch
    import transformers

    tokenizer = (_gpt2_tokenizer if kind == "gpt2" else _t5_tokenizer)(_texts())
    end = tokenizer.eos_token_id
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=len(tokenizer), n_embd=64, n_layer=2, n_head=4, bos_token_id=end, eos_token_id=end
        )
        model_class = transformers.GPT2LMHeadModel
    else:
        # The shape of FLAN-T5: gated feed-forward layers, an output layer of its own.
        config = transformers.T5Config(
            vocab_size=len(tokenizer),
            d_model=64,
            d_kv=16,
            d_ff=128,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=end,
            decoder_start_token_id=tokenizer.pad_token_id,
        )
        model_class = transformers.T5ForConditionalGeneration
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config)
    quietly(model.save_pretrained, folder)
    tokenizer.save_pretrained(folder)


def _texts() -> list[str]:
    articles = json.loads((SAMPLE / "train-v2.0.json").read_text(encoding="utf-8"))["data"]
    paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
    return [text for p in paragraphs for text in (p["context"], *(qa["question"] for qa in p["qas"]))]


def _gpt2_tokenizer(texts: list[str]) -> "PreTrainedTokenizerBase":
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    end = "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=[end],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end, model_max_length=1024
    )


def repeatable_unigram(tokenizer: "Tokenizer") -> "Tokenizer":
    """A trained Unigram tokenizer with ids that are the same each time.

    The trainer works through a hash table, whose order differs from process to process: scores differ in their last
    digits, and letters that are not learned stand near the end in any order, each 0.0001 below the one before. Here those
    letters have the lowest score, all of them. Special tokens keep the first ids.
    """
    from tokenizers import Tokenizer

    content = json.loads(tokenizer.to_str())
    special = len(content["added_tokens"])
    pieces = content["model"]["vocab"]
    learned = [(piece, round(score, 4)) for piece, score in pieces[special:]]
    lowest = min(score for _, score in learned)
    level = [
        (piece, lowest if len(piece) == 1 and score < lowest + 0.01 else score) for piece, score in learned
    ]
    ordered = sorted(level, key=lambda item: (-item[1], item[0]))
    content["model"]["vocab"] = pieces[:special] + ordered
    return Tokenizer.from_str(json.dumps(content))


def _t5_tokenizer(texts: list[str]) -> "PreTrainedTokenizerBase":
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    pad, end, unknown = special = ["<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=2000, special_tokens=special, unk_token=unknown, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer = repeatable_unigram(tokenizer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B:1 </s>", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=end, pad_token=pad, unk_token=unknown, model_max_length=1024
    )
