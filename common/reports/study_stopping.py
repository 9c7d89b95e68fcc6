"""The section of a study's report about seeds that were left out: what was decided, when, by which bound, and what it saved."""

from collections.abc import Mapping
from typing import Any

from ..counts import count_of
from ..durations import clock
from ..scoring.names import LABELS
from .documents import Block, Table, Text


def sections(study: Mapping[str, Any]) -> list[tuple[str, list[Block]]]:
    """A section for each stage with a `stop`; study: with `decided`, as `studies.decisions.record` makes it, or without."""
    made = study.get("decided", ())
    return [
        (
            f"What was decided early in stage {stage['stage']}"
            if len(made) > 1
            else "What was decided early",
            _blocks(stage, LABELS.get(study["metric"], study["metric"])),
        )
        for stage in made
    ]


def _blocks(stage: Mapping[str, Any], label: str) -> list[Block]:
    rule, spent, saved = stage["rule"], stage["spent_seconds"], stage["saved_seconds"]
    text = f"{stage['left_out']} of {count_of(stage['planned'], 'runs')} were left out"
    if saved and spent:
        text += (
            f", which saved {clock(saved)} of {clock(spent + saved)} ({100 * saved / (spent + saved):.0f}%)"
        )
    text += (
        f". A candidate gets no more seeds once a bound says that, with all seeds, it would not be ahead of the leader by "
        f"{rule['smallest_difference']:g} points of validation {label} or more. The chance that the candidate which "
        f"the full study would find best was stopped although it is ahead of that leader by that much is at most {100 * rule['error']:g}%, over "
        "all candidates and all looks together: seeds are taken as random and their effects as normal, and before any seed has "
        f"shown it, a score is believed to vary by {rule['seed_sd']:g} points from seed to seed."
    )
    beyond = (
        "The bound is about the validation examples of this study. Whether a difference holds for others, the last column "
        "says for the seeds that ran: an interval that stays valid at every look. The tests on test examples use all seeds "
        "that ran; a candidate that was stopped has fewer of them."
    )
    rows = [_row(row) for row in stage["candidates"]]
    columns = ["candidate", "runs", "decided after", "points to the leader", "with all seeds at most"]
    columns += ["one-sided error of the bound", "for other examples", "saved"]
    return [Text(text), Table(columns, rows), Text(beyond)]


def _row(row: Mapping[str, Any]) -> list[str]:
    cells = [row["candidate"], f"{row['done']} of {row['planned']}"]
    if "bound" not in row:
        cells += ["leader" if row["leads"] else "not decided early", "", "", "", ""]
    elif row["bound"] is None:
        cells += ["no score", "", "", "", ""]
    else:
        interval = f"{row['low']:+.1f} to {row['high']:+.1f}" if "low" in row else ""
        cells += [count_of(row["seeds"], "seeds"), f"{row['difference']:+.1f} ({row['leader']})"]
        cells += [f"{row['bound']:+.1f}", f"{100 * row['error']:.2g}%", interval]
    return [*cells, clock(row["saved_seconds"]) if row["saved_seconds"] else ""]
