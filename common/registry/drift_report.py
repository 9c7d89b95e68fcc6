"""What `drift` found, for a terminal and as one HTML page that loads nothing."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from ..atomic import atomic_write
from ..counts import count_of
from ..errors import UserError
from ..reports.documents import Block, Document, Figure, List, Table, Text, to_html
from ..reports.drift_figures import of_categories, of_numbers
from ..reports.text_tables import to_text
from ..scoring.uncertainty import shown_p
from ..scratch import scratch
from .drift import ALPHA, Drift, Measure, summary

HEADER = ["measure", "reference", "served", "distance", "95% bounds", "PSI", "p (Holm)", ""]


def as_text(found: Drift) -> str:
    """The table, below what was compared and above what follows."""
    table = pd.DataFrame([_row(measure) for measure in found.measures], columns=HEADER)
    return "\n".join([summary(found), "", to_text(table), "", *_notes(found), verdict(found)])


def verdict(found: Drift) -> str:
    """A sentence that names the measures that drift."""
    if not found.measures:
        return "Nothing can be compared: the rows hold no measure of the test data."
    if not found.drifting:
        return f"No drift: no measure has a distance of {found.least:g} or more that is not chance."
    return f"Drift: {', '.join(found.drifting)}."


def write_page(found: Drift, file: Path) -> None:
    """The HTML page, whole or not at all; UserError if it cannot be written."""
    with scratch() as folder:
        page = to_html(_document(found, folder))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as part:
            part.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {file} cannot be written: {error.strerror}.") from None


def _document(found: Drift, folder: Path) -> Document:
    strong = [measure.drifts for measure in found.measures]
    table = Table(HEADER, [_row(measure) for measure in found.measures], strong=strong)
    introduction: list[Block] = [Text(summary(found)), Text(verdict(found)), table, List(_explained(found))]
    sections: list[tuple[str, list[Block]]] = []
    for i, measure in enumerate(found.measures):
        figure = (of_numbers if measure.is_number else of_categories)(
            measure.reference, measure.served, measure.name
        )
        figure.savefig(file := folder / f"{i}.png")
        caption = (
            f"{len(measure.reference):,} of the reference, {len(measure.served):,} served, what comes again counted once; distance "
            f"{measure.distance.value:.3f}, p {shown_p(measure.p)} by Holm's correction."
        )
        sections.append((f"{measure.name}{' (drift)' if measure.drifts else ''}", [Figure(file, caption)]))
    return Document(f"Drift of {found.name}, version {found.version}", introduction, sections)


def _row(measure: Measure) -> list[str]:
    distance = measure.distance
    return [
        measure.name,
        _typical(measure, measure.reference),
        _typical(measure, measure.served),
        f"{distance.value:.3f}",
        f"{distance.low:.3f} to {distance.high:.3f}",
        f"{distance.stability_index:.2f}",
        shown_p(measure.p),
        "drift" if measure.drifts else "",
    ]


def _typical(measure: Measure, values: list) -> str:
    """The median of numbers; the category that most have, with its share."""
    if measure.is_number:
        median = float(np.median(values))
        return f"{median:,.0f}" if median >= 10 else f"{median:.2f}"
    name, count = Counter(values).most_common(1)[0]
    return f"{name} {count / len(values):.0%}"


def _notes(found: Drift) -> list[str]:
    notes = []
    if found.abstained:
        notes.append(
            f"{count_of(found.abstained, 'rows')} held back by max_error: their outcome is not compared."
        )
    if found.unreadable:
        notes.append(f"{count_of(found.unreadable, 'lines')} could not be read.")
    return notes


def _explained(found: Drift) -> list[str]:
    return [
        "reference, served: the median, or the category that most have. A length is in characters; the script is that of most "
        "letters.",
        "distance: of numbers Kolmogorov and Smirnov's, the largest difference of the two cumulative shares; of categories "
        "the total variation, half the sum of the differences of their shares. 0: alike; 1: nothing in common.",
        "95% bounds: of the distance, whatever the distributions (Dvoretzky, Kiefer and Wolfowitz; Weissman).",
        "PSI: the population stability index, over tenths of the reference, or categories.",
        f"drift: p below {ALPHA:g} by Holm's correction for all measures, and a distance of {found.least:g} or more: among "
        "very many rows the smallest difference is significant.",
        "A text, or a row, that comes again counts once.",
        *_notes(found),
    ]
