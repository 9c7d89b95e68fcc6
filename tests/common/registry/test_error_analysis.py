import numpy as np
import pandas as pd

from common.registry import error_analysis
from common.tasks.table import TASKS

TASK = TASKS["classification"]


def rows(right, prediction="positive"):
    return [
        {
            "id": str(i),
            "prediction": prediction,
            "label": "positive",
            "probability": 0.6,
            "accuracy": float(ok),
        }
        for i, ok in enumerate(right)
    ]


def test_labels_have_slices_and_runs_are_set_beside_each_other(tmp_path):
    right = np.arange(40) % 4 > 0
    examples = {
        str(i): {
            "id": str(i),
            "text": "word " * (10 * i),
            "label": i % 2,
            "label_name": ["bad", "good"][i % 2],
        }
        for i in range(40)
    }
    others = {"LoRA": rows(~right), "IA3": rows(right), "on other texts": rows(right[:5])}
    champion = ("version 1", rows(~right))
    error_analysis.write(tmp_path, rows(right), examples, others, TASK, champion)
    table = pd.read_csv(tmp_path / "slices.csv")
    assert {"label", "text length"} == set(table["dimension"]) and {"bad", "good"} <= set(table["slice"])
    assert ((table["low"] <= table["score"]) & (table["score"] <= table["high"])).all()
    shared = pd.read_csv(tmp_path / "agreement.csv").set_index("run")
    assert list(shared.index) == ["LoRA", "IA3"]
    assert tuple(shared.loc["LoRA"]) == (0, 30, 10, 0, 100) and shared.loc["IA3", "neither"] == 10
    assert "40 test texts; right means the right label" in (tmp_path / "agreement.md").read_text()
    assert (tmp_path / "worst.json").read_text().count('"accuracy": 0.0') == 10


def test_the_figure_names_every_slice_and_both_models():
    examples = [{"text": "word " * n, "label": n % 2, "label_name": "ab"[n % 2]} for n in range(1, 60)]
    table = slices.scores_by_slice(examples, [n % 3 > 0 for n in range(59)], TASK.slices)
    figure = error_analysis.slice_scores(table, "accuracy", "texts", ("version 1", table))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_yticklabels()] == [
        f"{row.slice}  ({row.examples})" for row in table.itertuples()
    ]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["this run", "version 1"]
    assert "accuracy" in axes.get_xlabel()
