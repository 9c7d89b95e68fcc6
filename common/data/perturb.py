"""Seeded variants of examples, as people and documents differ from test sets: pure functions, with answers still in their places.

What is drawn for an example follows from the seed, the kind and the example's id alone, not from its neighbours.
"""

import random
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import regex

from ..errors import UserError
from .record import Example

TYPO_SHARE = 0.1
"""Share of the words that get a typing error, at least one in each text."""

SHORTEST = 4
"""Letters of a word that may get one: shorter ones would often become other words."""

SENTENCE = (30, 300)
"""Least and most characters of a sentence that is put beside a context."""

_WORD = regex.compile(r"\w+")
_CLUSTER = regex.compile(r"\X")
_SENTENCE_END = regex.compile(r"(?<=[.!?])\s+(?=\S)|(?<=[。！？])")


class Kind(NamedTuple):
    """A kind of variant."""

    what: str
    """What it does, for the report."""
    change: Callable[[str, random.Random], str] | None
    """Of the question, or of a text that is classified; None: of the context."""


def typos(text: str, rng: random.Random) -> str:
    """The text with a typing error in one of ten words of four letters or more, at least one: two neighbouring letters
    swapped, one left out, or one doubled. Letters are whole as readers see them (grapheme clusters)."""
    words = [word for word in _WORD.finditer(text) if len(_CLUSTER.findall(word[0])) >= SHORTEST]
    if not words:
        return text
    chosen = rng.sample(words, max(1, round(TYPO_SHARE * len(words))))
    for word in sorted(chosen, key=lambda found: -found.start()):
        text = text[: word.start()] + _mistyped(_CLUSTER.findall(word[0]), rng) + text[word.end() :]
    return text


def _mistyped(letters: list[str], rng: random.Random) -> str:
    """A word with one error. The first letter stays: people seldom miss it."""
    differing = [i for i in range(1, len(letters) - 1) if letters[i] != letters[i + 1]]
    kind = rng.choice(("swap", "drop", "double") if differing else ("drop", "double"))
    if kind == "swap":
        i = rng.choice(differing)
        letters[i], letters[i + 1] = letters[i + 1], letters[i]
    else:
        i = rng.randrange(1, len(letters))
        letters[i : i + 1] = [] if kind == "drop" else [letters[i]] * 2
    return "".join(letters)


def case(text: str, rng: random.Random) -> str:
    """The text in lower case, in upper case, or each word with a capital, whichever of them it is not yet; as it is in a
    script without case."""
    variants = [text.lower(), text.upper(), capitals(text)]
    changed = [variant for variant in dict.fromkeys(variants) if variant != text]
    return rng.choice(changed) if changed else text


def capitals(text: str) -> str:
    """The text with a capital at the beginning of each word."""
    return _WORD.sub(lambda word: word[0][:1].upper() + word[0][1:], text)


def punctuation(text: str, rng: random.Random) -> str:
    """The text without punctuation marks, with each of them doubled, or with a space before each; marks inside a word or a
    number ("didn't", "1.5") stay. Where a text has none, it gets a full stop."""
    marks = [i for i, character in enumerate(text) if _is_mark(text, i, character)]
    if not marks:
        return f"{text}."
    put = rng.choice(("", "double", "space"))
    made = list(text)
    for i in marks:
        made[i] = {"": "", "double": text[i] * 2, "space": f" {text[i]}"}[put]
    changed = "".join(made)
    # Marks alone are no text.
    return changed if changed.strip() else text * 2


def _is_mark(text: str, i: int, character: str) -> bool:
    inside = 0 < i < len(text) - 1 and text[i - 1].isalnum() and text[i + 1].isalnum()
    return unicodedata.category(character).startswith("P") and not inside


KINDS: dict[str, Kind] = {
    "typos": Kind("typing errors in one of ten words of the question", typos),
    "case": Kind("the question in lower case, in upper case, or with capitals", case),
    "punctuation": Kind("marks of the question left out, doubled or set apart", punctuation),
    "distractor": Kind("a sentence of another document before or behind the context", None),
}
"""Name → kind, as `--perturb` takes them. Texts that are classified are changed like questions, and have no distractor."""


def check(kinds: Sequence[str]) -> None:
    """UserError names a kind that there is not."""
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(f"--perturb {kind!r}: choose among {', '.join(KINDS)}.")


def perturbed(examples: Sequence[Example], kind: str, seed: int = 0) -> list[Example]:
    """A variant of each example, with its id, in order; those that a kind cannot change (a question of short words, a script
    without case) are as they were.

    The answers of a question stay what they are: after `distractor` their places are those in the longer context. UserError
    for a distractor where texts are classified or all examples are of one document.
    """
    check([kind])
    change = KINDS[kind].change
    if change is None:
        return _distracted(examples, kind, seed)
    return [_changed(example, change, _random(seed, kind, example)) for example in examples]


def _random(seed: int, kind: str, example: Mapping[str, object]) -> random.Random:
    # A text is hashed by sha512 there: the same everywhere.
    return random.Random(f"{seed} {kind} {example['id']}")


def _changed(example: Example, change: Callable[[str, random.Random], str], rng: random.Random) -> Example:
    name = "question" if "question" in example else "text"
    return example | {name: change(example[name], rng)}


def _distracted(examples: Sequence[Example], kind: str, seed: int) -> list[Example]:
    if any("context" not in example for example in examples):
        raise UserError(
            "--perturb distractor is for questions on contexts; texts that are classified have none."
        )
    pool = _sentences(examples)
    if len({document for document, _ in pool}) < 2:
        raise UserError(
            "--perturb distractor needs sentences of at least two documents (titles, or contexts where there are none)."
        )
    return [_beside(example, pool, _random(seed, kind, example)) for example in examples]


def _document(example: Example) -> str:
    return str(example.get("title") or example["context"])


def _sentences(examples: Iterable[Example]) -> list[tuple[str, str]]:
    """(document, sentence) of each sentence of a usual length, each context once, in the order of the examples."""
    found = []
    for context, document in {example["context"]: _document(example) for example in examples}.items():
        for sentence in _SENTENCE_END.split(context):
            if SENTENCE[0] <= len(sentence.strip()) <= SENTENCE[1]:
                found.append((document, sentence.strip()))
    return found


def _beside(example: Example, pool: Sequence[tuple[str, str]], rng: random.Random) -> Example:
    """The example with a sentence of another document that holds none of its answers."""
    golds = [text.casefold() for text in (example.get("answers") or {"text": []})["text"] if text.strip()]
    document = _document(example)
    # A draw that does not fit is repeated; where hardly any does, all are looked through.
    # All draws are made at once: `before` below is drawn after them, whichever of them fits.
    drawn = [rng.choice(pool) for _ in range(50)]
    usable = (
        s for d, s in chain(drawn, pool) if d != document and not any(gold in s.casefold() for gold in golds)
    )
    sentence = next(usable, None)
    if sentence is None:
        return example
    return with_sentence(example, sentence, before=rng.random() < 0.5)


def with_sentence(example: Example, sentence: str, before: bool) -> Example:
    """The example with a sentence before or behind its context, and the places of its answers in the longer context."""
    context = example["context"]
    if not before:
        return example | {"context": f"{context} {sentence}"}
    made = example | {"context": f"{sentence} {context}"}
    if answers := example.get("answers"):
        shift = len(sentence) + 1
        # -1: a reference that does not stand in the context.
        starts = [start + shift if start >= 0 else start for start in answers["answer_start"]]
        made["answers"] = {**answers, "answer_start": starts}
    return made
