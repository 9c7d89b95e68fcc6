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
