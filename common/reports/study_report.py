"""A finished study → its folder: figures, report.md with links to them, and report.html with everything in one file."""

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ..counts import count_of
from ..durations import clock
from ..scoring.names import LABELS
from ..scoring.uncertainty import range_of_samples, share_misranked, shown_p
from . import leaderboard, result_tables, study_charts, study_figures, study_stopping, study_tradeoffs
from .configurations import (
    FAILED,
    FINISHED,
    MISSING,
    SIZE,
    STOPPED,
    Scores,
    Study,
    best,
    comparisons,
    configurations,
    decisive,
    matrices,
    name_of,
    text_of,
    tidy,
    varying,
)
from .documents import Block, Document, Figure, List, Table, Text, to_html, to_markdown
from .study_curves import Histories

FEW = 5
"""Number of examples by which published comparisons were decided; the report states what such a score is worth."""


def write_report(
    folder: Path,
    study: Study,
    runs: pd.DataFrame,
    histories: Histories,
    scores: Scores,
    gradients: Histories | None = None,
) -> list[Path]:
    """Write the report of a study into the folder; returns the files. Figures that the data does not support are left out,
    and figures of an earlier report are removed.

    runs: one row for each run: `stage`, `name`, `technique`, `checkpoint`, the axes, `seed`, `status` ("finished",
    "failed", "stopped" or "missing"), `failure`, `run_id`, scores in percent, costs.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    runs = tidy(study, runs)
    table = configurations(study, runs, scores)
    study_figures.remove(folder)
    written = _write_results(folder, study, table, scores)
    figures: list[Block] = []
    for name, caption, figure in study_figures.figures(study, runs, table, histories, gradients or {}):
        if figure is not None:
            figure.savefig(folder / name)
            figures.append(Figure(folder / name, caption))
            written.append(folder / name)
    document = _document(study, runs, table, scores, figures)
    for name, text in (("report.md", to_markdown(document)), ("report.html", to_html(document))):
        (folder / name).write_text(text, encoding="utf-8")
        written.append(folder / name)
    return written


def _write_results(folder: Path, study: Study, table: pd.DataFrame, scores: Scores) -> list[Path]:
    """Write the results that the documentation takes; the files. Those of an earlier report are removed."""
    results = {
        "leaderboard.json": leaderboard.leaderboard(study, table, scores),
        "learning_curves.json": leaderboard.learning_curves(study, table, scores),
    }
    written = []
    for name, result in results.items():
        if result is None:
            (folder / name).unlink(missing_ok=True)
        else:
            (folder / name).write_text(result_tables.as_json(result), encoding="utf-8")
            written.append(folder / name)
    return written


def _document(
    study: Study, runs: pd.DataFrame, table: pd.DataFrame, scores: Scores, figures: list[Block]
) -> Document:
    metric = study["metric"]
    introduction: list[Block] = [Text(study["description"]), Text(_what_was_run(study, runs))]
    sections: list[tuple[str, list[Block]]] = []
    several = table["stage"].nunique() > 1 if len(table) else False
    tested = (
        [
            (name, stage, comparisons(study, stage, scores))
            for name, stage in table.groupby("stage", sort=False)
        ]
        if len(table)
        else []
    )
    deciding = decisive(table, study["axes"])["stage"].iloc[0] if len(table) else None
    final = next((e for e in tested if e[0] == deciding and e[1]["test"].notna().any()), None)
    if final:
        sections += [("In short", [List(_in_short(metric, *final[1:]))])]
    for name, stage, tests in tested:
        if stage["run_ids"].map(len).any():
            sections += [(f"Results of stage {name}" if several else "Results", _results(study, stage))]
            heading = f"What differs in stage {name}" if several else "What differs and what does not"
            sections += [(heading, _differences(stage, tests))]
    if final:
        sections += study_tradeoffs.sections(study, table, final[1], scores)
        few = _few_examples(metric, final[1], scores)
        sections += [(f"What {FEW} examples would show", [Text(few)])] if few else []
    if study.get("edges"):
        advice = Text("A best value at the edge of the grid may not be the best possible.")
        sections += [("Edges of the grid", [advice, List(list(study["edges"]))])]
    sections += study_stopping.sections(study)
    unfinished = runs[runs["status"] != FINISHED]
    if len(unfinished):
        sections += [("Runs that did not finish", [_unfinished(study, unfinished)])]
    if figures:
        sections += [("Figures", figures)]
    sections += [("How the intervals are computed", [Text(text) for text in _METHOD])]
    if study.get("provenance"):
        rows = [[key, value] for key, value in _flat(study["provenance"])]
        sections += [("Provenance", [Table(["what", "value"], rows, numbers=False)])]
    return Document(study["name"], introduction, sections)


def _what_was_run(study: Study, runs: pd.DataFrame) -> str:
    metric, axes = study["metric"], varying(runs, study["axes"])
    counted = [(sum(runs["status"] == status), status) for status in (FINISHED, FAILED, STOPPED, MISSING)]
    counts = ", ".join(f"{count} {status}" for count, status in counted if count) or "none"
    lines = [
        f"Task {study['task']}, decided by {LABELS.get(metric, metric)}. {count_of(len(runs), 'runs')}: {counts}."
    ]
    for axis in axes:
        given = study_charts.ordered(runs[axis])
        lines.append(f"{name_of(axis).capitalize()}: {', '.join(text_of(axis, value) for value in given)}.")
    if seeds := sorted(runs["seed"].dropna().unique()):
        lines.append(f"{count_of(len(seeds), 'seeds')}: {', '.join(f'{seed:.0f}' for seed in seeds)}.")
    return " ".join(lines)


def _in_short(metric: str, stage: pd.DataFrame, tests: pd.DataFrame) -> list[str]:
    label = LABELS.get(metric, metric)
    first = best(stage[stage["test"].notna()])
    top = stage.loc[first]
    decided = "validation" if not math.isnan(top["validation"]) else "test scores, as nothing was validated"
    sentences = [
        f"{top['label']} is best by {decided}: test {label} {_interval(top['test'], top['low'], top['high'])}."
    ]
    if tests.empty:
        return sentences
    equal = {
        a if b == first else b
        for a, b, p in tests[["a", "b", "p_holm"]].itertuples(index=False)
        if first in (a, b) and p >= 0.05
    }
    if not equal:
        others = tests[(tests["a"] == first) | (tests["b"] == first)]
        if len(others) == len(stage[stage["test"].notna()]) - 1:
            sentences.append("Every other configuration differs from it significantly.")
        return sentences
    names = stage.loc[sorted(equal), "label"]
    if len(names) > 6:
        sentences.append(
            f"{len(names)} of {len(stage) - 1} other configurations do not differ from it significantly."
        )
    else:
        sentences.append(f"Not significantly different from it: {'; '.join(names)}.")
    alike = stage.loc[sorted({top.name} | equal)].dropna(subset=["trainable_parameters"])
    if len(alike) > 1:
        small = alike.loc[alike["trainable_parameters"].idxmin()]
        if small.name != first and small["trainable_parameters"] < top["trainable_parameters"]:
            share = small["trainable_parameters"] / top["trainable_parameters"]
            sentences.append(
                f"Of these, {small['label']} trains the fewest parameters: {_percent(share)} of the number that {top['label']} trains."
            )
    return sentences


def _results(study: Study, stage: pd.DataFrame) -> list[Block]:
    metric = study["metric"]
    label = LABELS.get(metric, metric)
    if SIZE not in varying(stage, study["axes"]):
        stage = stage.sort_values(["validation", "test"], ascending=False, kind="stable", na_position="last")
    first = best(stage)
    others = [name for name in LABELS if name != metric and stage[f"test_{name}"].notna().any()]
    columns = {
        "configuration": list(stage["label"]),
        "seeds": [
            _seeds(len(ids), planned) for ids, planned in zip(stage["run_ids"], stage["planned"], strict=True)
        ],
        f"validation {label}": [_number(value, ".1f") for value in stage["validation"]],
        f"test {label} [95%]": [
            _interval(*row) for row in stage[["test", "low", "high"]].itertuples(index=False)
        ],
        **{
            f"test {LABELS[name]}": [_number(value, ".1f") for value in stage[f"test_{name}"]]
            for name in others
        },
        "trained": [
            _trained(*row)
            for row in stage[["trainable_parameters", "total_parameters"]].itertuples(index=False)
        ],
        "time": [clock(value) for value in stage["training_seconds"]],
        "samples/s": [_number(value, ".3g") for value in stage["train_samples_per_second"]],
        "memory MiB": [_number(value, ",.0f") for value in stage["peak_memory_mib"]],
        "adapter MiB": [_number(value, ",.3g") for value in stage["adapter_mib"]],
    }
    columns = {
        name: cells for name, cells in columns.items() if name in ("configuration", "seeds") or any(cells)
    }
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    marked = [i == first for i in stage.index]
    sentences = [
        "Bold: best by validation." if stage["validation"].notna().any() else "Bold: best by test score."
    ]
    sentences += ["Scores are means over seeds, in percent; time is training time alone."]
    asked = sorted({int(n) for n in stage["test_examples"].dropna()})
    if asked:
        sentences.append(
            f"Tested on {' to '.join(f'{n:,}' for n in dict.fromkeys([asked[0], asked[-1]]))} examples."
        )
    if (stage["method"] == "one seed").any():
        only = (
            "The intervals are"
            if (stage["method"] != "seeds").all()
            else "Intervals of single scores without examples are"
        )
        sentences.append(
            f"{only} over test examples alone: with one seed the spread between seeds is unknown."
        )
    elif (stage["method"] == "seeds").any():
        sentences.append("The intervals cover other test examples and other seeds.")
        if sum(len(ids) - 1 for ids in stage["run_ids"] if ids) < 4:
            sentences.append("So few seeds say little about their spread, which makes the intervals wide.")
    return [Table(list(columns), rows, strong=marked), Text(" ".join(sentences))]


def _differences(stage: pd.DataFrame, tests: pd.DataFrame) -> list[Block]:
    if tests.empty:
        return [
            Text(
                "Nothing can be compared: that needs the scores of at least two configurations on the same examples."
            )
        ]
    over_seeds = (stage["method"] == "seeds").any()
    rows = []
    for test in tests.sort_values(["p_holm", "p"], kind="stable").itertuples():
        names = stage.loc[[test.a, test.b], "label"]
        significant = test.p_holm < 0.05
        verdict = "differ" if significant else "not distinguished"
        rows.append(
            [
                f"{names.iloc[0]} - {names.iloc[1]}",
                _interval(test.difference, test.low, test.high, "+"),
                shown_p(test.p),
                shown_p(test.p_holm),
                verdict,
            ]
        )
    count = int((tests["p_holm"] < 0.05).sum())
    if len(tests) == 1:
        verdict = f"The one comparison is {'' if count else 'not '}significant at 0.05."
    else:
        verdict = f"{count} of {len(tests)} comparisons {'is' if count == 1 else 'are'} significant at 0.05 after correction for their number."
    text = (
        f"{verdict} "
        "Two that are not distinguished need not be equal: the interval shows how far apart they may be. "
        f"The tests are paired by test example{', and take the spread between seeds into account' if over_seeds else '; with one seed they do not predict the next seed'}."
    )
    return [Text(text), Table(["comparison", "points [95%]", "p", "p, Holm", ""], rows)]


def _few_examples(metric: str, stage: pd.DataFrame, scores: Scores) -> str:
    """What a score of FEW examples would be worth, by the scores of the best and the second-best configuration."""
    each, _ = matrices(stage, scores, metric)
    first = best(stage.loc[list(each)])
    if first is None:
        return ""
    label, top = LABELS.get(metric, metric), stage.loc[first]
    by_example = each[first].mean(axis=0) if len(each[first]) == 1 else each[first][0]
    low, high = range_of_samples(by_example, FEW)
    text = (
        f"Scores of {FEW} examples are published; this is what one would be worth. On {FEW} test examples drawn at random, "
        f"{top['label']}{'' if len(each[first]) == 1 else ' with its first seed'} would score between {low:.0f} and {high:.0f} in 95 "
        f"cases of 100, while all {len(by_example):,} examples give {label} {by_example.mean():.1f}."
    )
    second = best(stage.loc[[i for i in each if i != first]])
    if second is not None:
        ahead, behind = sorted((first, second), key=lambda i: -each[i].mean())
        share = share_misranked(each[ahead][0], each[behind][0], FEW)
        gap = each[ahead][0].mean() - each[behind][0].mean()
        if gap > 0:
            text += (
                f" {stage.loc[behind, 'label']}, {gap:.1f} points behind {stage.loc[ahead, 'label']} on all of them, would be "
                f"level or ahead in {100 * share:.0f} of 100 such draws."
            )
    return text


def _unfinished(study: Study, runs: pd.DataFrame) -> Table:
    axes = [axis for axis in study["axes"] if axis in runs]
    rows = []
    for _, run in runs.iterrows():
        values = "; ".join(f"{name_of(a)} {text_of(a, run[a])}" for a in axes if text_of(a, run[a]) != "-")
        reason = run["failure"] or ("not run yet" if run["status"] == MISSING else "no reason was recorded")
        rows.append(
            [run["name"] or run["technique"], values, _number(run["seed"], ".0f"), run["status"], reason]
        )
    names = ["run", "configuration", "seed", "status", "reason"]
    used = [i for i, _ in enumerate(names) if any(row[i] for row in rows)]
    return Table([names[i] for i in used], [[row[i] for i in used] for row in rows], numbers=False)


_METHOD = (
    "Several seeds: seeds and test examples are both treated as random, and as crossed, because every seed answers the "
    "same examples. Mean squares give what each adds to the variance of a mean; each has a half-width by Student's t, "
    "and the two are combined as a root of squares (MOVER; Zou and Donner, 2008). The spread between seeds is pooled over "
    "the configurations of a stage, or the configuration's own if that is larger. Resampling so few seeds would give "
    "intervals that are too narrow.",
    "One seed throughout a stage: percentile bootstrap over test examples (2,000 resamples), paired for differences.",
    "Up to six configurations are compared pair by pair. Of more, the techniques at the same number of training examples "
    "are compared if that number varies, else each with the best by validation. Holm's correction (1979) covers the comparisons of a stage.",
)


def _flat(content: object, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(content, Mapping):
        pairs = [_flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in content.items()]
        return [pair for each in pairs for pair in each]
    if isinstance(content, list | tuple):
        content = ", ".join(map(str, content))
    return [(prefix, str(content))]


def _seeds(done: int, planned: int) -> str:
    return str(done) if done == planned else f"{done} of {planned}"


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else f"{value:{form}}"


def _interval(value: float, low: float, high: float, sign: str = "") -> str:
    if math.isnan(low) or math.isnan(high):
        return _number(value, f"{sign}.1f")
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def _trained(trainable: float, total: float) -> str:
    if math.isnan(trainable):
        return ""
    return f"{trainable:,.0f} ({_percent(trainable / total)})" if total > 0 else f"{trainable:,.0f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%" if share >= 0.1 else f"{100 * share:.2g}%"
