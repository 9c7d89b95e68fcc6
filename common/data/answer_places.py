"""The place of an answer in its context when the offset in the file is wrong or missing."""

import unicodedata
from functools import lru_cache


def place(context: str, text: str, start: int) -> tuple[int, int] | None:
    """(start, end) of the answer in code points of the context, end exclusive; None if it is not there.

    start: the file's offset, at least 0, in code points or in UTF-16 code units (Java, JavaScript). The text may
    differ from the context by case, white space, zero-width characters and Unicode normalisation (NFKD).

    Of several places the nearest to `start` is taken. A place that is spelled exactly like the text is preferred, unless it is
    more than twice as far away.
    """
    if not text.strip():
        return None
    if context.startswith(text, start):
        return start, start + len(text)
    exact = _exact(context, text)
    starts = {start, _in_code_points(context, start)}

    spelled = set(exact)

    def rank(found: tuple[int, int]) -> tuple[int, bool]:
        distance = min(abs(found[0] - each) for each in starts)
        return (distance, False) if found in spelled else (2 * distance, True)

    return min([*exact, *_alike(context, text)], key=rank, default=None)


def places(context: str, text: str) -> list[tuple[int, int]]:
    """Every place of the text as it is spelled; where there is none, every place of it in another case or normalisation."""
    return (_exact(context, text) or _alike(context, text)) if text.strip() else []


def first_whole(context: str, found: list[tuple[int, int]]) -> tuple[int, int] | None:
    """The first of these places with no letter or digit directly before or after it; else the first; None if there is none.

    In a script without blanks between words most places have letters beside them, so there it is mostly the first.
    """

    def in_word(character: str) -> bool:
        return character.isalnum() or bool(character) and unicodedata.category(character).startswith("M")

    def whole(at: tuple[int, int]) -> bool:
        return not (in_word(context[max(at[0] - 1, 0) : at[0]]) or in_word(context[at[1] : at[1] + 1]))

    return next(filter(whole, found), found[0] if found else None)


def _exact(context: str, text: str) -> list[tuple[int, int]]:
    return [(at, at + len(text)) for at in _occurrences(context, text)]


def _in_code_points(context: str, units: int) -> int:
    """An offset in UTF-16 code units as one in code points."""
    if context.isascii():
        return units
    return len(context.encode("utf-16-le", "surrogatepass")[: 2 * units].decode("utf-16-le", "ignore"))


def _alike(context: str, text: str) -> list[tuple[int, int]]:
    """Places of the text, regardless of case, white space and normalisation."""
    plain, where = _plain(context)
    wanted, _ = _plain(text.strip())
    found = []
    for at in _occurrences(plain, wanted) if wanted else ():
        last = at + len(wanted) - 1
        # Only whole characters: where "ﬁ" is two letters, an answer neither begins nor ends between them.
        begins = at == 0 or where[at - 1] != where[at]
        if begins and (last + 1 == len(plain) or where[last + 1] != where[last]):
            end = where[last] + 1
            while end < len(context) and unicodedata.combining(context[end]):
                end += 1
            found.append((where[at], end))
    return found


def _occurrences(context: str, text: str) -> list[int]:
    found, at = [], context.find(text)
    while at >= 0:
        found.append(at)
        at = context.find(text, at + 1)
    return found


@lru_cache(maxsize=8)
def _plain(text: str) -> tuple[str, list[int]]:
    """The text in one case, one normalisation and with single blanks, and the index in the text of each of its characters."""
    plain: list[str] = []
    where: list[int] = []
    for i, character in enumerate(text):
        if character.isspace():
            if plain and plain[-1] != " ":
                plain.append(" ")
                where.append(i)
            continue
        if unicodedata.category(character) == "Cf":
            continue
        for each in unicodedata.normalize("NFKD", character).casefold():
            if each.isspace():
                if plain and plain[-1] == " ":
                    continue
                each = " "
            plain.append(each)
            where.append(i)
    while plain and plain[-1] == " ":
        plain.pop()
        where.pop()
    return "".join(plain), where
