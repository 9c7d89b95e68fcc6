"""A run's errors as files: scores by slice, the worst examples, and the errors that it shares with other runs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ..counts import count_of
from ..reports.run_figures import slice_scores
from ..reports.text_tables import to_markdown
from ..scoring.names import LABELS
from ..scoring.slices import agreement, scores_by_slice, worst
from ..tasks.interface import Task

FOLDER = "error_analysis"


def write(
    folder: Path,
    rows: Sequence[Mapping],
    examples: Mapping[str, Mapping],
    others: Mapping[str, Sequence[Mapping]],
    task: Task,
    champion: tuple[str, Sequence[Mapping]] | None = None,
) -> None:
    """Write slices.csv, slices.png, worst.json, agreement.csv and agreement.md into a folder.

    rows: of the run's predictions/test.json. examples: the test data by id; without it there are no slices. others: name of
    another run → its rows on the same examples. champion: (name, rows) of the model that the figure shows beside the run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tested = [examples[row["id"]] for row in rows] if all(row["id"] in examples for row in rows) else None
    if tested is not None:
        table = scores_by_slice(tested, [row[task.metric] for row in rows], task.slices)
        table.to_csv(folder / "slices.csv", index=False, float_format="%.4f")
        beside = None
        if champion is not None and [row["id"] for row in champion[1]] == [row["id"] for row in rows]:
            beside = (
                champion[0],
                scores_by_slice(tested, [row[task.metric] for row in champion[1]], task.slices),
            )
        figure = slice_scores(table, LABELS[task.metric], task.unit, beside)
        figure.savefig(folder / "slices.png")
    errors = worst(tested or [{}] * len(rows), rows, task.metric, task.confidence)
    text = json.dumps(errors, indent=1, ensure_ascii=False)
    (folder / "worst.json").write_text(text + "\n", encoding="utf-8")
    shared = confusions(rows, others, task)
    shared.to_csv(folder / "agreement.csv", index=False, float_format="%.2f")
    (folder / "agreement.md").write_text(_page(shared, task), encoding="utf-8")


def confusions(rows: Sequence[Mapping], others: Mapping[str, Sequence[Mapping]], task: Task) -> pd.DataFrame:
    """How often a run and each of the others are right on the same examples: `run`, the counts of `slices.agreement`, and
    `same_answer` in percent. Runs that were tested on other examples are left out.

    An answer is right if the whole answer, or the label, is right.
    """
    right, found = task.metrics[-1], []
    for name, theirs in others.items():
        by_id = {row["id"]: row for row in theirs}
        if by_id.keys() != {row["id"] for row in rows}:
            continue
        pairs = [(row, by_id[row["id"]]) for row in rows]
        counts = agreement([own[right] for own, _ in pairs], [their[right] for _, their in pairs])
        same = sum(own["prediction"] == their["prediction"] for own, their in pairs)
        found.append({"run": name, **counts, "same_answer": 100 * same / len(pairs)})
    columns = ["run", "both", "only_first", "only_second", "neither", "same_answer"]
    return pd.DataFrame(found, columns=columns)


def _page(shared: pd.DataFrame, task: Task) -> str:
    if shared.empty:
        return f"No other run was tested on the same {task.unit}.\n"
    shown = shared.rename(
        columns={
            "run": "other run",
            "both": "both right",
            "only_first": "only this run",
            "only_second": "only the other",
            "neither": "neither",
            "same_answer": "same answer",
        }
    )
    shown["same answer"] = [f"{value:.1f}%" for value in shared["same_answer"]]
    counts = shown.columns[1:5]
    shown[counts] = shown[counts].map(lambda n: f"{n:,}")
    total = int(shared.iloc[0][["both", "only_first", "only_second", "neither"]].sum())
    return (
        f"This run beside others, on the same {count_of(total, f'test {task.unit}')}; right means {task.right}.\n\n"
        + to_markdown(shown)
    )
