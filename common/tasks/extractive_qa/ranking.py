"""The largest values of each row, and where groups begin: NumPy alone, exact in the order of equal values."""

import numpy as np

_NONE = np.float32(-np.inf)
_LOW = np.int64(0xFFFFFFFF)


def ordered(values: np.ndarray) -> np.ndarray:
    """int32 values in the order of the float32 values (-0.0 counts as 0.0)."""
    bits = (values + np.float32(0)).view(np.int32)
    bits ^= (bits >> 31) & np.int32(0x7FFFFFFF)
    return bits


def largest(values: np.ndarray, n: int) -> np.ndarray:
    """(W, n) columns of the n largest values of each row, from left to right; of equal values the leftmost are taken."""
    keys = _keys(values, np.arange(values.shape[1]))
    keys.partition(values.shape[1] - n, axis=1)
    return np.sort(_columns(keys[:, -n:]), axis=1)


def ranked(values: np.ndarray, least: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(W, n) columns of the n largest values of each row, largest first, of equal ones the leftmost first; (W, n) whether
    there is one: values below `least`, above -inf, do not count. Fast where few others are left."""
    kept = np.flatnonzero(values >= least)
    row, column = np.divmod(kept, values.shape[1])
    nth = np.arange(len(row)) - group_bounds(row, len(values))[row]
    nothing = _keys(np.array(_NONE), 0)
    keys = np.full((len(values), max(n, nth.max(initial=0) + 1)), nothing)
    keys[row, nth] = _keys(values.ravel()[kept], column)
    keys.sort(axis=1)
    best = keys[:, : -n - 1 : -1]
    return _columns(best), best > nothing


def _keys(values: np.ndarray, columns: np.ndarray | int) -> np.ndarray:
    """Value and column as one integer: the larger value is larger, and of equal ones the column further to the left.

    So all integers of a row differ, and sorting them moves the columns along.
    """
    keys: np.ndarray = ordered(values).astype(np.int64)
    keys <<= 32
    keys += _LOW - columns
    return keys


def _columns(keys: np.ndarray) -> np.ndarray:
    return _LOW - (keys & _LOW)


def group_bounds(group: np.ndarray, groups: int) -> np.ndarray:
    """(groups + 1,) positions where each group begins, and the last one ends, in a sorted array of group indices."""
    return np.concatenate([[0], np.cumsum(np.bincount(group, minlength=groups))])
