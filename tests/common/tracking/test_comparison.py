"""Which runs are compared, and what the table says of them."""

import math

import numpy as np
import pandas as pd
import pytest

from common.errors import UserError
from common.scoring.bootstrap import paired_bootstrap
from common.tasks.table import TASKS
from common.tracking.comparison import (
    QA,
    choose_data,
    choose_runs,
    columns,
    compare,
    display,
)

A, B = "aa11" * 16, "aa22" * 16


def run(run_id, technique="LoRA", **values):
    return {
        "run_id": run_id,
        "run_name": technique,
        "technique": technique,
        "checkpoint": "embedded",
        "data_name": "sample",
        "data_version": "v2.0",
        "data_fingerprint": A,
        "device": "cpu",
        "test_examples": 4.0,
        "test_exact_match": 50.0,
        "test_exact_match_low": 40.0,
        "test_exact_match_high": 60.0,
        "test_f1": 50.0,
        "test_f1_low": 45.0,
        "test_f1_high": 55.0,
        "trainable_parameters": 5e5,
        "total_parameters": 2e7,
        "training_seconds": 3725.0,
        "train_samples_per_second": 5.04,
        "peak_memory_mib": 1234.5,
        "adapter_mib": 1.9,
        "learning_rate": 1e-3,
        "num_train_epochs": 2.0,
        "batch_size": 16.0,
        "max_train_samples": math.nan,
        "seed": 42.0,
        "settings": "0a",
    } | values


def table(*runs):
    return pd.DataFrame(runs)


def read_from(scores):
    """Scores by run → a reader of predictions with the ids "0", "1", ..., or those that the scores are keyed by."""

    def read(run_id):
        each = scores[run_id]
        each = each if isinstance(each, dict) else {str(i): f1 for i, f1 in enumerate(each)}
        return [{"id": id_, "f1": f1, "prediction": "x"} for id_, f1 in each.items()]

    return read


def test_the_newest_runs_data_is_compared_and_others_are_named():
    runs = table(run("new"), run("other", data_fingerprint=B, data_name="squad"), run("old"))
    chosen, others = choose_data(runs)
    assert list(chosen["run_id"]) == ["new", "old"]
    assert others == [f"squad (v2.0, 1 run): --data_fingerprint {B[:12]}"]
    chosen, others = choose_data(runs, "aa22")
    assert list(chosen["run_id"]) == ["other"]
    assert others == [f"sample (v2.0, 2 runs): --data_fingerprint {A[:12]}"]


@pytest.mark.parametrize(("given", "fits"), [("ff", 0), ("aa", 2)])
def test_a_fingerprint_must_fit_one_data_set(given, fits):
    runs = table(run("new"), run("other", data_fingerprint=B))
    with pytest.raises(UserError, match=f"{given} fits {fits} of .*\n.*{A[:12]}\n.*{B[:12]}"):
        choose_data(runs, given)


def test_the_latest_run_of_each_technique_and_checkpoint_is_chosen():
    runs = table(run("3"), run("2", checkpoint="bert"), run("1"), run("0", "IA3"))
    read = read_from({run_id: [0.0, 1.0, 0.5, 0.25] for run_id in "0123"})
    chosen, scores, left_out = choose_runs(runs, read)
    assert list(chosen["run_id"]) == list(scores) == ["3", "2", "0"]
    assert left_out == []
    chosen, _, _ = choose_runs(runs, read, every=True)
    assert list(chosen["run_id"]) == ["3", "2", "1", "0"]


def test_runs_on_other_questions_are_left_out_and_named():
    runs = table(
        run("smoke", test_examples=1.0),
        run("new"),
        run("subset", "IA3"),
        run("IA3 before", "IA3"),
    )
    scores = {
        "smoke": [1.0],
        "new": {"a": 0.0, "b": 1.0, "c": 0.5, "d": 0.25},
        "subset": {"a": 0.0, "b": 1.0, "c": 0.5, "x": 0.25},
        "IA3 before": {"d": 0.1, "c": 0.2, "b": 0.3, "a": 0.4},
    }
    chosen, found, left_out = choose_runs(runs, read_from(scores))
    assert list(chosen["run_id"]) == ["new", "IA3 before"]
    assert found["IA3 before"].tolist() == [0.4, 0.3, 0.2, 0.1]
    assert left_out == [
        "LoRA, run smoke: tested on 1 other questions",
        "IA3, run subset: tested on 4 other questions",
    ]


def test_predictions_are_read_only_where_they_are_needed():
    runs = table(run("new"), run("old"))
    choose_runs(runs, read_from({"new": [1.0] * 4}))


def test_each_run_is_tested_against_the_best():
    rng = np.random.default_rng(0)
    scores = {"a": rng.random(50), "b": rng.random(50)}
    means = {name: 100 * each.mean() for name, each in scores.items()}
    best, worse = sorted(means, key=means.get, reverse=True)
    runs = table(*(run(name, name, test_f1=means[name]) for name in "ab"))
    compared = compare(runs, scores)
    assert tuple(compared) == columns(QA)
    assert list(compared["run_id"]) == [best, worse]
    assert compared["f1_difference"][0] == 0 and math.isnan(compared["f1_p"][0])
    expected = paired_bootstrap(scores[worse], scores[best])
    found = compared.loc[1]
    assert found["f1_difference"] == pytest.approx(means[worse] - means[best])
    assert (
        found["f1_difference_low"] == 100 * expected["low"]
        and found["f1_difference_high"] == 100 * expected["high"]
    )
    assert found["f1_p"] == expected["p"]
    assert found["trainable_percent"] == 2.5


def test_equal_f1_is_settled_by_exact_match():
    runs = table(run("a", "A"), run("b", "B", test_exact_match=51.0))
    compared = compare(runs, {"a": [1.0, 0.0], "b": [1.0, 0.0]})
    assert list(compared["run_id"]) == ["b", "a"]
    assert (compared["f1_difference"][1], compared["f1_p"][1]) == (0, 1)


def test_labels_tell_the_rows_apart():
    def labels(*runs):
        return sorted(compare(table(*runs), {r["run_id"]: [1.0] for r in runs})["label"])

    assert labels(run("1", "IA3"), run("2", "LoRA")) == ["IA3", "LoRA"]
    assert labels(run("1"), run("2", checkpoint="/home/me/bert-base/")) == [
        "LoRA, bert-base",
        "LoRA, embedded",
    ]
    assert labels(run("1234567"), run("2345678"), run("3", "IA3")) == ["IA3", "LoRA, 123456", "LoRA, 234567"]


@pytest.fixture
def shown():
    runs = table(run("1", test_f1=61.04), run("2", "IA3", peak_memory_mib=math.nan, training_seconds=59.6))
    return display(compare(runs, {"1": [1.0, 1.0], "2": [0.5, 1.0]}))


def test_display_is_text_with_units(shown):
    best, other = shown.to_dict("records")
    assert best == {
        "technique": "LoRA",
        "EM [95%]": "50.0 [40.0, 60.0]",
        "F1 [95%]": "61.0 [45.0, 55.0]",
        "F1 - best [95%]": "best",
        "p": "",
        "trainable": "2.50%",
        "time": "1:02:05",
        "samples/s": "5.0",
        "memory MiB": "1,234",
        "adapter MiB": "1.90",
        "learning rate": "0.001",
        "epochs": "2",
    }
    assert other["F1 - best [95%]"] == "-25.0 [-50.0, +0.0]"
    assert (other["time"], other["memory MiB"]) == ("1:00", "")


def test_what_else_differs_is_shown():
    runs = table(run("1", max_train_samples=3000.0, device="H200"), run("2", "IA3"))
    shown = display(compare(runs, {"1": [1.0], "2": [1.0]}))
    assert list(shown["train questions"]) == ["3,000", "all"] and list(shown["device"]) == ["H200", "cpu"]
    assert "seed" not in shown


def test_scores_that_do_not_decide_are_shown_where_runs_have_them():
    task = TASKS["classification"]
    accuracy = {"test_accuracy": 80.0, "test_accuracy_low": 70.0, "test_accuracy_high": 90.0}
    macro = {"test_f1_macro": 75.0, "test_f1_macro_low": 60.0, "test_f1_macro_high": 88.0}
    scores = {"old": [1, 0], "new": [1, 1]}
    earlier = compare(table(run("old", **accuracy)), scores, task)
    assert list(earlier.columns) == list(columns(task)) and "macro-F1 [95%]" not in display(earlier, task)
    both = compare(table(run("old", **accuracy), run("new", **accuracy, **macro)), scores, task)
    shown = dict(zip(both["run_id"], display(both, task)["macro-F1 [95%]"], strict=True))
    assert shown == {"old": "", "new": "75.0 [60.0, 88.0]"}
