"""The figures of a study's report, and their captions."""

import math
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ..scoring.names import LABELS
from . import pareto, study_charts, study_curves
from .configurations import SIZE, Study, decisive, name_of, varying
from .study_curves import Histories

_FIXED = (
    "accuracy_curves.png",
    "loss_curves.png",
    "time_per_step.png",
    "f1_per_mparams.png",
    "efficiency_tradeoff.png",
    "pareto.png",
    "acc_vs_size.png",
    "gradient_flow.png",
)


def remove(folder: Path) -> None:
    """Remove the figures that an earlier report left in the folder."""
    for old in [
        *map(folder.joinpath, _FIXED),
        *folder.glob("heatmap_*.png"),
        *folder.glob("metric_vs_*.png"),
    ]:
        old.unlink(missing_ok=True)


def figures(
    study: Study, runs: pd.DataFrame, table: pd.DataFrame, histories: Histories, gradients: Histories
) -> Iterator[tuple[str, str, Figure | None]]:
    """(file name, caption, figure or None), in the order of the report. The arguments are those of `write_report`, with
    tidied runs and `table`, their configurations."""
    if table.empty:
        return
    metric, axes = study["metric"], study["axes"]
    label = LABELS.get(metric, metric)
    stages = [stage for _, stage in table.groupby("stage", sort=False)]
    final = decisive(table, axes)
    of_stage = f" of stage {final['stage'].iloc[0]}" if len(stages) > 1 else ""
    lines = (
        "Thick: the mean over seeds of each line's best configuration by validation, with the lowest and highest seed "
        "as a band; thin: its other runs."
    )
    for axis in axes:
        widest = max(stages, key=lambda stage: stage[axis].nunique())
        if axis == SIZE:
            figure = study_charts.against_axis(widest, axis, metric, tested=True)
            yield "acc_vs_size.png", f"Test {label} by the number of training examples.", figure
        elif pd.api.types.is_numeric_dtype(table[axis]) and varying(widest, axes) == [axis]:
            figure = study_charts.against_axis(widest, axis, metric, tested=False)
            yield f"metric_vs_{axis}.png", f"Validation {label} by {name_of(axis)}.", figure
    for a, b in combinations(axes, 2):
        widest = max(stages, key=lambda stage: min(stage[a].nunique(), stage[b].nunique()))
        caption = f"Validation {label} by {name_of(a)} and {name_of(b)}, as a mean over everything else."
        yield f"heatmap_{a}_{b}.png", caption, study_charts.heatmap(widest, a, b, metric)
    yield (
        "efficiency_tradeoff.png",
        f"Test {label} against training time{of_stage}.",
        study_charts.efficiency_tradeoff(final, metric),
    )
    caption = (
        f"Test {label} against each cost{of_stage}. Filled, and joined by the line: no other one is as cheap and as good. "
        "Test inputs a second are measured in batches; they stand for latency."
    )
    yield "pareto.png", caption, pareto.chart(final, metric)
    caption = f"Points of test {label} per million trainable parameters{of_stage}: a small number of parameters, not a good score, may rank first."
    yield "f1_per_mparams.png", caption, study_charts.points_per_mparams(final, metric)
    caption = f"Training time per optimizer step{of_stage}, without validation; points are seeds."
    yield "time_per_step.png", caption, study_charts.time_per_step(final, seconds_per_step(runs, histories))
    caption = f"Validation {label} by epoch. {lines}"
    yield "accuracy_curves.png", caption, study_curves.accuracy_curves(table, axes, histories, metric)
    caption = f"Training loss by step and by epoch, smoothed where it has more than 20 points. {lines}"
    yield "loss_curves.png", caption, study_curves.loss_curves(table, axes, histories)
    caption = (
        "Gradient norm of each layer's trained parameters by step, before clipping. If there are many configurations, "
        "the best of each group."
    )
    flow = study_curves.flow_of_best(table, axes, gradients)
    yield "gradient_flow.png", caption, study_curves.gradient_flow(flow)


def seconds_per_step(runs: pd.DataFrame, histories: Histories) -> dict[str, float]:
    """Run id → training seconds divided by optimizer steps, for the runs that have both."""
    steps = {run: max((e.get("step", 0) for e in entries), default=0) for run, entries in histories.items()}
    seconds = dict(zip(runs["run_id"], runs["training_seconds"], strict=True))
    return {
        run: seconds[run] / n for run, n in steps.items() if n and math.isfinite(seconds.get(run, math.nan))
    }
