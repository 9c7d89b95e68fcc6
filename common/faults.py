"""Faults of input data, each with its place: reported together, or left out and listed next to the prepared data."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import UserError

Fault = Mapping[str, str]
"""`place` and `reason` of what is wrong, and perhaps the `file`."""

MOST_FAULTS = 20
"""Faults that a message lists; the rest are counted."""


def refuse(
    source: Path | str,
    faults: Sequence[Fault],
    remedy: str = "prepare_data.py --on_bad_rows skip leaves them out",
) -> None:
    """Raise UserError if there are faults: it lists `place` and `reason` of the first 20, and the number of the others.

    remedy: what helps against several faults at once, if anything does.
    """
    lines = [f"{fault['place']}{fault['reason']}" for fault in faults]
    if len(lines) == 1:
        raise UserError(f"{source}: {lines[0]}")
    if lines:
        more = f"\n  ... and {len(lines) - MOST_FAULTS} more" if len(lines) > MOST_FAULTS else ""
        shown = "".join(f"\n  {line}" for line in lines[:MOST_FAULTS])
        raise UserError(f"{source} has {len(lines)} faults{f' ({remedy})' if remedy else ''}:{shown}{more}")
