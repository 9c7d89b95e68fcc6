"""Two sections of a study's report: what each configuration costs, and how the score rises with the data."""

import pandas as pd

from ..scoring.names import LABELS
from . import leaderboard, pareto
from .configurations import SIZE, Scores, Study, text_of
from .documents import Block, Table, Text

Sections = list[tuple[str, list[Block]]]


def sections(study: Study, table: pd.DataFrame, final: pd.DataFrame, scores: Scores) -> Sections:
    """The sections that the data supports. table: all configurations; final: those of the stage that says what is best."""
    found: Sections = []
    if costs := _costs(study, final):
        found.append(("What each one costs", costs))
    if growth := _growth(study, table, scores):
        found.append(("How the score rises with the data", growth))
    return found


def _costs(study: Study, stage: pd.DataFrame) -> list[Block]:
    if stage["test"].notna().sum() < 2 or not pareto.known(stage):
        return []
    header, rows, strong = pareto.rows(stage, study["metric"])
    text = (
        "Bold: on the Pareto front, which means that no other one is at least as good in the score and in every cost and "
        "better in one. An asterisk marks the front over the score and that cost alone. Scores are compared as they are; "
        "those that do not differ significantly may change places. Test inputs (windows or texts) a second are measured in "
        "batches: they stand for latency, which depends on the server."
    )
    return [Table(header, rows, strong=strong), Text(text)]


def _growth(study: Study, table: pd.DataFrame, scores: Scores) -> list[Block]:
    curves = [
        curve
        for curve in leaderboard.curves(study, table, scores)
        if len({size for size, _ in curve.rows}) > 1
    ]
    if not curves:
        return []
    sizes = sorted({size for curve in curves for size, _ in curve.rows})
    best = {
        size: max(row["test"] for curve in curves for at, row in curve.rows if at == size) for size in sizes
    }
    rows = []
    for curve in curves:
        held = dict(curve.rows)
        cells = [_score(held[size], best[size]) if size in held else "" for size in sizes]
        slope = curve.slope
        rising = f"{slope['slope']:+.1f} [{slope['low']:+.1f}, {slope['high']:+.1f}]" if slope else ""
        rows.append([curve.name, *cells, rising])
    header = ["technique", *(text_of(SIZE, size) for size in sizes), "points per doubling [95%]"]
    label = LABELS.get(study["metric"], study["metric"])
    text = (
        f"Test {label} [95%] by the number of training examples; an asterisk marks the best at that number. Points per "
        "doubling are the slope of a line through the scores over the logarithm of that number: they describe these "
        "numbers, and curves flatten beyond them."
    )
    return [Table(header, rows), Text(text)]


def _score(row: pd.Series, best: float) -> str:
    interval = f" [{row['low']:.1f}, {row['high']:.1f}]" if pd.notna(row["low"]) else ""
    return f"{row['test']:.1f}{interval}{'*' * bool(row['test'] == best)}"
