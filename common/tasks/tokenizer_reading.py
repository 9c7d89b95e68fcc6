"""Whether a tokenizer reads the data. Without this check a model would train without an error, on text that it does not see."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Encoding, decoders

from ..models.tokenizer_fit import unfit
from .interface import Example, Task

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

SAMPLE = 100
"""Number of examples that are checked in each part of the data."""

LONGEST = 5_000
"""Number of characters that are checked in a text."""

MOST_UNKNOWN = 0.10
"""Share of a text's visible characters that may be unknown. A vocabulary of the text's language leaves under 1% unknown (SQuAD
with BERT's English vocabulary: 0.1%), that of another script most characters; at a tenth, every other sentence lacks a word."""

MOST_MISPLACED = 0.05
"""Share of tokens whose letters may differ from those at their offsets. Sound tokenizers have under 1%, for letters that they
rewrite in their own ways."""

LEAST_WHOLE = 0.5
"""Share of the true answers that tokens must be able to reproduce: no model can reach a higher exact match."""


def check_reading(
    tokenizer: "PreTrainedTokenizerBase",
    splits: "Mapping[str, datasets.Dataset]",
    task: Task,
    *,
    name: str,
    data_dir: str,
) -> None:
    """UserError where a tokenizer does not read a sample of the data: letters unknown or misplaced, answers lost.

    splits: part → prepared data of the task. name: the checkpoint's.
    """
    examples = [example for split in splits.values() for example in spread(split)]
    if task.needs_offsets and not tokenizer.is_fast:
        raise unfit(
            name,
            "its tokenizer is a slow one, without offsets: answers could not be placed in the context",
            "Convert it to a fast one (tokenizer.json).",
        )
    texts = [text[:LONGEST] for text in dict.fromkeys(text for each in examples for text in task.texts(each))]
    if not tokenizer.is_fast:
        share, example = unknown_tokens(tokenizer, texts)
    else:
        encodings = tokenizer(texts, add_special_tokens=False, verbose=False).encodings
        if task.needs_offsets:
            share, example = misplaced(tokenizer, texts, encodings)
            if share > MOST_MISPLACED:
                raise unfit(
                    name,
                    f"the offsets of its tokenizer are wrong: {share:.0%} of the tokens in {data_dir} do not say what "
                    f"stands at their place ({example})",
                    "Correct its pre-tokenizer or post-processor, or use the family's own tokenizer.",
                )
        share, example = unread(tokenizer, texts, encodings)
    if share > MOST_UNKNOWN:
        raise unfit(
            name,
            f"{share:.0%} of the text in {data_dir} is unknown ({tokenizer.unk_token or 'dropped'}) to its tokenizer, for "
            f"example {example!r}; at most {MOST_UNKNOWN:.0%} may be",
            "Choose a checkpoint whose vocabulary covers the language of the data.",
        )
    share, example = whole_answers(tokenizer, examples, task)
    if share < LEAST_WHOLE:
        raise unfit(
            name,
            f"its tokenizer reproduces {share:.0%} of the true answers in {data_dir} ({example}); at least "
            f"{LEAST_WHOLE:.0%} are needed",
            "Choose a checkpoint whose tokenizer divides the data's words.",
        )


def spread(split: "datasets.Dataset") -> list[dict[str, Any]]:
    """At most SAMPLE examples of a part, evenly spread over it."""
    chosen = np.linspace(0, len(split) - 1, min(len(split), SAMPLE)).astype(int)
    return split.select(chosen).to_list()


def unknown_tokens(tokenizer: "PreTrainedTokenizerBase", texts: Iterable[str]) -> tuple[float, str]:
    """(share of the tokens that are unknown, a text with one); for tokenizers without offsets, which give no more."""
    counts = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        counts.append((ids.count(tokenizer.unk_token_id), len(ids), text[:40]))
    unknown = sum(count for count, _, _ in counts)
    return unknown / max(1, sum(n for _, n, _ in counts)), next((text for n, _, text in counts if n), "")


def unread(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], encodings: Sequence[Encoding]
) -> tuple[float, str]:
    """(share of the visible characters that are in no token or in an unknown one, an example of such characters).

    Spaces, accents and control characters, which sound tokenizers drop, do not count.
    """
    lost = total = 0
    example = ""
    unknown = tokenizer.unk_token_id
    for text, encoding in zip(texts, encodings, strict=True):
        read: np.ndarray = np.zeros(len(text), dtype=bool)
        for (start, end), token in zip(encoding.offsets, encoding.ids, strict=True):
            if token != unknown:
                read[start:end] = True
        missed = [i for i in np.flatnonzero(~read).tolist() if _visible(text[i])]
        lost += len(missed)
        total += sum(map(_visible, text))
        if missed and not example:
            last = next((i for i, place in enumerate(missed) if place != missed[0] + i), len(missed)) - 1
            example = text[missed[0] : missed[last] + 1][:40]
    return lost / max(1, total), example


@cache
def _visible(character: str) -> bool:
    return not character.isspace() and unicodedata.category(character)[0] not in "MC"


def misplaced(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], encodings: Sequence[Encoding]
) -> tuple[float, str]:
    """(share of the known tokens with letters whose letters differ from those at their offsets, an example)."""
    spelled = _speller(tokenizer)
    normalizer = tokenizer.backend_tokenizer.normalizer
    wrong = total = 0
    example = ""
    for text, encoding in zip(texts, encodings, strict=True):
        for (start, end), token in zip(encoding.offsets, encoding.ids, strict=True):
            if not (letters := spelled(token)):
                continue
            total += 1
            there = text[start:end]
            if letters == _letters(there):
                continue
            if normalizer is None or letters != _letters(normalizer.normalize_str(there)):
                wrong += 1
                example = example or f"{tokenizer.convert_ids_to_tokens(token)!r} stands at {there!r}"
    return wrong / max(1, total), example


@lru_cache(maxsize=10_000)
def _letters(text: str) -> str:
    """The letters and digits of a text, without case and accents."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKD", text.casefold()).casefold()))


def _speller(tokenizer: "PreTrainedTokenizerBase") -> Callable[[int], str]:
    """id → the letters that a token spells; "" for special and unknown tokens, punctuation and parts of characters."""
    backend, skipped = tokenizer.backend_tokenizer, set(tokenizer.all_special_ids)
    parts = [part.__getstate__() for part in (backend.pre_tokenizer, backend.normalizer) if part is not None]
    in_bytes = any(b"ByteLevel" in (part if isinstance(part, bytes) else part.encode()) for part in parts)
    prefix = getattr(backend.model, "continuing_subword_prefix", None) or ""
    suffix = getattr(backend.model, "end_of_word_suffix", None) or ""
    decode = decoders.ByteLevel().decode
    known: dict[int, str] = {}

    def spelled(token: int) -> str:
        if token not in known:
            text = "" if token in skipped else tokenizer.convert_ids_to_tokens(token)
            text = decode([text]) if in_bytes else text.removeprefix(prefix).removesuffix(suffix)
            partial = "\ufffd" in text or re.fullmatch("<0x[0-9A-F]{2}>", text)
            known[token] = "" if partial else _letters(text)
        return known[token]

    return spelled


def whole_answers(
    tokenizer: "PreTrainedTokenizerBase", examples: Sequence[Example], task: Task
) -> tuple[float, str]:
    """(share of the true answers with letters whose tokens give the same letters again, an example of another answer).

    (1, "") for a task whose answers are not texts.
    """
    asked = [example for example in examples if "answers" in example and _stands(example)]
    returned = task.given_back(tokenizer, asked)
    if returned is None:
        return 1.0, ""
    golds = [example["answers"]["text"][0] for example in asked]
    pairs = [(gold, text) for gold, text in zip(golds, returned, strict=True) if _letters(gold)]
    lost = [(gold, text) for gold, text in pairs if _letters(gold) != _letters(text)]
    example = f"{lost[0][0][:40]!r} comes back as {lost[0][1][:40]!r}" if lost else ""
    return 1 - len(lost) / max(1, len(pairs)), example


def _stands(example: Example) -> bool:
    """Whether there is a first answer and the context has it at its place."""
    answers = example["answers"]
    if not answers["text"]:
        return False
    gold, start = answers["text"][0], answers["answer_start"][0]
    return start >= 0 and example["context"].startswith(gold, start)
