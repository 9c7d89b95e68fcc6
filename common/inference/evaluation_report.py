"""An evaluation as tables: models × data sets, what separates the models, and what each loses on variants."""

import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ..counts import count_of
from ..data import perturb
from ..errors import UserError
from ..reports.text_tables import to_markdown, to_text
from ..scoring.names import LABELS
from .evaluating import DataSet, Evaluation, Result


def scores(evaluation: Evaluation) -> pd.DataFrame:
    """Texts: a row for each model, a column for each data set with the deciding score and its interval."""
    metric = evaluation.task.metric
    table: dict[str, dict[str, str]] = {}
    for result in evaluation.results:
        value = _interval(result.figures, metric)
        table.setdefault(result.model.name, {})[f"{result.data.title}: {LABELS[metric]} [95%]"] = value
    rows = [{"model": name, **cells} for name, cells in table.items()]
    return pd.DataFrame(rows)


def on_one_set(evaluation: Evaluation, data: DataSet) -> pd.DataFrame:
    """Texts: every model on one data set, the best first, with the paired test against the best."""
    task = evaluation.task
    metrics = list(reversed(task.metrics))
    rows = []
    for result in evaluation.ranked(data):
        found = evaluation.behind.get((result.model.name, data.title))
        rows.append(
            {
                "model": result.model.name,
                **{f"{LABELS[name]} [95%]": _interval(result.figures, name) for name in metrics},
                f"{LABELS[task.metric]} - best [95%]": _signed(found) if found else "best",
                "p": f"{found['p']:.3f}" if found else "",
            }
        )
    return pd.DataFrame(rows)


def robustness(evaluation: Evaluation) -> pd.DataFrame:
    """Texts: a row for each model and data set, with what it loses on each variant; empty without variants."""
    metric = evaluation.task.metric
    table: dict[tuple[str, str], dict[str, str]] = {}
    for result in evaluation.results:
        key = (result.model.name, result.data.name)
        if result.data.variant:
            found = evaluation.lost[*key, result.data.variant]
            table[key][result.data.variant] = f"{_signed(found)}, p {found['p']:.3f}"
        elif any(held[:2] == key for held in evaluation.lost):
            table[key] = {f"{LABELS[metric]} as it is": f"{result.figures[metric]:.1f}"}
    return pd.DataFrame([{"model": model, "data": name, **cells} for (model, name), cells in table.items()])


def long(evaluation: Evaluation, runs: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Numbers: a row for each model and data set. runs: model → the evaluation's MLflow run."""
    rows = []
    for result in evaluation.results:
        name, data = result.model.name, result.data
        rows.append(
            {
                "model": name,
                "content": result.model.origin.content,
                "data": data.name,
                "variant": data.variant,
                "fingerprint": data.fingerprint,
                "examples": len(data.examples),
                **result.figures,
                **_numbers("to_best", evaluation.behind.get((name, data.title))),
                **_numbers("to_original", evaluation.lost.get((name, data.name, data.variant))),
                "run_id": (runs or {}).get(name, ""),
            }
        )
    return pd.DataFrame(rows)


def slices(evaluation: Evaluation) -> pd.DataFrame:
    """Numbers: the deciding score of each model on each slice of each data set, with intervals."""
    tables = [
        result.slices.assign(model=result.model.name, data=result.data.name, variant=result.data.variant)
        for result in evaluation.results
    ]
    columns = ["model", "data", "variant", "dimension", "slice", "examples", "score", "low", "high"]
    return pd.concat(tables)[columns]


def as_text(evaluation: Evaluation) -> str:
    """All tables for a terminal."""
    return "\n\n".join(
        f"{title}\n{note}\n\n{to_text(table)}" if note else f"{title}\n\n{to_text(table)}"
        for title, note, table in _parts(evaluation)
    )


def as_markdown(evaluation: Evaluation) -> str:
    """All tables as a document."""
    return "\n".join(
        f"## {title}\n\n{note}{chr(10) * 2 if note else ''}{to_markdown(table)}"
        for title, note, table in _parts(evaluation)
    )


def write(evaluation: Evaluation, folder: Path, runs: Mapping[str, str] | None = None) -> list[str]:
    """Write evaluation.md, evaluation.csv and slices.csv into a folder; their names. UserError where it cannot be written."""
    make_folder(folder)
    try:
        (folder / "evaluation.md").write_text(as_markdown(evaluation), encoding="utf-8")
        long(evaluation, runs).to_csv(folder / "evaluation.csv", index=False, float_format="%.10g")
        slices(evaluation).to_csv(folder / "slices.csv", index=False, float_format="%.4f")
    except OSError as error:
        raise UserError(f"--output_dir {folder}: {error.strerror}: {error.filename}.") from None
    return ["evaluation.md", "evaluation.csv", "slices.csv"]


def make_folder(folder: Path) -> None:
    """Make the folder of the files; UserError where they cannot be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output_dir {folder}: {error.strerror}: {error.filename}.") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"--output_dir {folder}: nothing can be written there.")


def _parts(evaluation: Evaluation) -> list[tuple[str, str, pd.DataFrame]]:
    """(title, note, table) of each part."""
    label, unit = LABELS[evaluation.task.metric], evaluation.task.unit
    parts = []
    sets = list({result.data.title: result.data for result in evaluation.results}.values())
    whole = [data for data in sets if not data.variant]
    if len(whole) > 1:
        only = Evaluation([r for r in evaluation.results if not r.data.variant])
        parts.append((f"{label} of each model on each data set", "", scores(only)))
    for data in whole:
        note = (
            f"{count_of(len(data.examples), unit)}, fingerprint {data.fingerprint[:12]}. Brackets: 95% bootstrap intervals over the {unit}; "
            f"{label} - best: paired bootstrap against the first row."
        )
        parts.append((data.title, note, on_one_set(evaluation, data)))
    lost = robustness(evaluation)
    if not lost.empty:
        kinds = [kind for kind in perturb.KINDS if kind in lost]
        what = "; ".join(f"{kind}: {perturb.KINDS[kind].what}" for kind in kinds)
        note = f"Points of {label} on each variant against the same {unit} as they are, with 95% paired bootstrap intervals. {what[:1].upper()}{what[1:]}."
        parts.append(("What each model loses", note, lost.fillna("")))
    return parts


def _interval(figures: Mapping[str, float], name: str) -> str:
    return f"{figures[name]:.1f} [{figures[f'{name}_low']:.1f}, {figures[f'{name}_high']:.1f}]"


def _signed(found: Mapping[str, float]) -> str:
    return f"{found['difference']:+.1f} [{found['low']:+.1f}, {found['high']:+.1f}]"


def _numbers(name: str, found: Mapping[str, float] | None) -> dict[str, float]:
    return {f"{name}_{key}": value for key, value in (found or {}).items()}


def metrics(result: Result) -> dict[str, float]:
    """The figures of a result as MLflow has them: eval_<data set>_<score>."""
    found = {f"eval_{_plain(result.data.key)}_{name}": value for name, value in result.figures.items()}
    return found | {f"eval_{_plain(result.data.key)}_examples": float(len(result.data.examples))}


def _plain(name: str) -> str:
    """A name as a metric may have it."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name)[:150]
