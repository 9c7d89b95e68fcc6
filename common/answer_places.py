"""Where an answer stands in its context, when the offset that a file gives is wrong or missing."""

import unicodedata
from bisect import bisect_left


def place(context: str, text: str, start: int) -> tuple[int, int] | None:
    """(start, end) of the answer in code points of the context, end exclusive; None where that cannot be known.

    start: what the file gives, in code points or in UTF-16 code units (Java, JavaScript); -1 where it gives nothing. The text is
    looked for at `start`, then wherever it stands as it is, then wherever it stands but for case, white space and
    Unicode normalisation (NFKD). Of several places the one nearest to `start` is taken, and none without a `start`.
    """
    if not text.strip():
        return None
    if start >= 0 and context.startswith(text, start):
        return start, start + len(text)
    if start > 0 and not context.isascii():
        units = len(context.encode("utf-16-le", "surrogatepass")[: 2 * start].decode("utf-16-le", "ignore"))
        if context.startswith(text, units):
            return units, units + len(text)
    found = _nearest(_occurrences(context, text), start)
    if found is not None:
        return found, found + len(text)
    plain, where = _plain(context)
    wanted, _ = _plain(text.strip())
    if not wanted:
        return None
    # Whole characters alone: where "ﬁ" is two letters, an answer neither begins nor ends between them.
    hits = [
        at
        for at in _occurrences(plain, wanted)
        if (at == 0 or where[at - 1] != where[at])
        and (at + len(wanted) == len(plain) or where[at + len(wanted)] != where[at + len(wanted) - 1])
    ]
    near = bisect_left(where, start) if start >= 0 else -1
    found = _nearest(hits, near)
    if found is None:
        return None
    end = where[found + len(wanted) - 1] + 1
    while end < len(context) and unicodedata.combining(context[end]):
        end += 1
    return where[found], end


def _occurrences(context: str, text: str) -> list[int]:
    found, at = [], context.find(text)
    while at >= 0:
        found.append(at)
        at = context.find(text, at + 1)
    return found


def _nearest(places: list[int], start: int) -> int | None:
    if not places or (start < 0 and len(places) > 1):
        return None
    return min(places, key=lambda place: abs(place - start))


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
