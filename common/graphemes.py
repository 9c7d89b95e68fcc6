"""Where a text may be cut without halving a character that readers see as one: a letter with its accents, a joined emoji."""

import numpy as np
import regex

_CLUSTER = regex.compile(r"\X")
_FORMAT = regex.compile(r"\p{WB=Format}")
_JOINS = regex.compile(
    r"[\r\p{WB=Format}\p{GCB=Extend}\p{GCB=ZWJ}\p{GCB=SpacingMark}\p{GCB=Prepend}\p{GCB=Regional_Indicator}"
    r"\p{GCB=L}\p{GCB=V}\p{GCB=T}]"
)
"""Every text that may not be cut everywhere contains one of these."""


def cuts(text: str) -> tuple[np.ndarray, np.ndarray] | None:
    """For each place 0..N of a text of N characters: (the nearest place at or before it where a part may begin, the nearest
    place at or after it where a part may end); None if every place is both, as in plain English.

    Parts begin and end at the bounds of extended grapheme clusters (Unicode Standard Annex #29). A format character, such
    as a direction mark or a soft hyphen, belongs to what precedes it, as in the same annex's rule WB4 for words: it is
    invisible, so a part that ends right before it would look the same.
    """
    if (text.isascii() and "\r" not in text) or not _JOINS.search(text):
        return None
    begins: np.ndarray = np.zeros(len(text) + 1, dtype=bool)
    begins[[match.start() for match in _CLUSTER.finditer(text)]] = True
    begins[-1] = True
    ends = begins.copy()
    ends[[match.start() for match in _FORMAT.finditer(text)]] = False
    places: np.ndarray = np.arange(len(text) + 1, dtype=np.int32)
    before = np.maximum.accumulate(np.where(begins, places, 0))
    after = np.minimum.accumulate(np.where(ends, places, len(text))[::-1])[::-1]
    return before, after


def widened(spans: np.ndarray, found: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    """(n, 2) begins and ends in a text, moved outwards to places that `cuts` allows; empty spans stay as they are."""
    if found is None:
        return spans
    before, after = found
    wide, real = spans.copy(), spans[:, 0] < spans[:, 1]
    wide[real, 0], wide[real, 1] = before[spans[real, 0]], after[spans[real, 1]]
    return wide
