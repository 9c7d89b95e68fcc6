"""How answers in other languages than English are compared: published conventions, by the code of a language.

A question says in its field `language` which of them it is scored by; without one it is scored by SQuAD's own rules.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial


def bag(predicted: Sequence[str], gold: Sequence[str]) -> int:
    """Tokens in common, each as often as it is on both sides."""
    return sum((Counter(predicted) & Counter(gold)).values())


def longest_run(predicted: Sequence[str], gold: Sequence[str]) -> int:
    """Tokens in the longest run that both sequences contain."""
    longest, ending = 0, [0] * (len(gold) + 1)
    for one in predicted:
        # ending[j]: tokens of the common run that ends at this token and at gold[j - 1].
        ending = [0, *(ending[j] + 1 if one == other else 0 for j, other in enumerate(gold))]
        longest = max(longest, *ending)
    return longest


@dataclass(frozen=True)
class Rules:
    """How a predicted answer and a true one are compared."""

    normalize: Callable[[str], str]
    """Two answers match exactly if these texts of them are equal."""
    tokens: Callable[[str], list[str]] = str.split
    """Normalized text → the tokens that F1 counts."""
    shared: Callable[[Sequence[str], Sequence[str]], int] = bag
    """(predicted tokens, true tokens) → how many they have in common."""


_MLQA_ARTICLES = {
    "en": r"\b(a|an|the)\b",
    "es": r"\b(un|una|unos|unas|el|la|los|las)\b",
    "vi": r"\b(của|là|cái|chiếc|những)\b",
    "de": r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    # Wherever it stands: the published pattern has no bounds.
    "ar": "ال",
    "hi": None,
    "zh": None,
}

_HAN = r"[\u4e00-\u9fa5]"
_CHARACTERS = (
    r"[\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
)
"""Han and kana: texts that put no spaces between words."""


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character).startswith("P") or character in string.punctuation


def _by_character(text: str, characters: str = _HAN) -> str:
    """With spaces around each of the characters, and no other white space than single spaces."""
    return " ".join(re.sub(f"({characters})", r" \1 ", text).split())


def words(text: str) -> list[str]:
    """The words of a text of any language, for its length: each Han or kana character is one."""
    return _by_character(text, _CHARACTERS).split()


def _mlqa(text: str, language: str) -> str:
    """MLQA's normalization (Lewis et al. 2020, https://github.com/facebookresearch/MLQA)."""
    text = "".join(c for c in text.lower() if not _is_punctuation(c))
    if articles := _MLQA_ARTICLES[language]:
        text = re.sub(articles, " ", text)
    return _by_character(text) if language == "zh" else " ".join(text.split())


def _japanese(text: str) -> str:
    """MLQA's rules for Chinese, for kana too: MLQA has no Japanese."""
    return _by_character("".join(c for c in text.lower() if not _is_punctuation(c)), _CHARACTERS)


_KORQUAD_SPACES = str.maketrans(dict.fromkeys("'\"《》<>〈〉()‘’", " "))
_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _korquad(text: str) -> str:
    """KorQuAD 1.0's normalization (Lim et al. 2019, https://korquad.github.io)."""
    return " ".join(text.translate(_KORQUAD_SPACES).lower().translate(_ASCII_PUNCTUATION).split())


def _syllables(text: str) -> list[str]:
    """KorQuAD counts characters: Korean puts particles at the ends of words."""
    return list(text.replace(" ", ""))


_CMRC_REMOVED = str.maketrans("", "", "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_WORD = rf"(?:(?!{_HAN})\w)+"
_CMRC_TOKEN = re.compile(rf"{_HAN}|{_WORD}(?:(?:\.|,(?=\d)){_WORD})*(?:\.(?=\s*(?!{_HAN})\S))?|[^\w\s]")


def _cmrc(text: str) -> str:
    """CMRC 2018's normalization (Cui et al. 2019, https://github.com/ymcui/cmrc2018): white space within stays."""
    return text.lower().strip().translate(_CMRC_REMOVED)


RULES = {
    **{code: Rules(partial(_mlqa, language=code)) for code in _MLQA_ARTICLES},
    "ja": Rules(_japanese),
    "korquad": Rules(_korquad, _syllables),
    # The official script cuts what is not Chinese with NLTK's tokenizer. This one cuts words, numbers and abbreviations
    # like it; rarer signs may be cut otherwise.
    "cmrc": Rules(_cmrc, _CMRC_TOKEN.findall, longest_run),
}
RULES["ko"] = RULES["korquad"]
"""Language or published convention → its rules."""

CODE = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*|korquad|cmrc", re.IGNORECASE)
"""What names a language: ISO 639 with or without a region ("pt-BR"), or a convention."""


def without_region(language: str) -> str:
    """The code of a language alone, in lower case: "zh" of "zh-Hans"."""
    return language.lower().split("-")[0]


def rules_of(language: str | None) -> Rules | None:
    """The rules for a language ("de", "zh-Hans") or a convention ("korquad"); None where SQuAD's own hold: no language is
    named, or one for which nothing is published."""
    return RULES.get(without_region(language)) if language else None
