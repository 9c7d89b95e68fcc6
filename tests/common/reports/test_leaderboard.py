"""The leaderboard and the learning curves of a study, as the documentation takes them."""

import json

import numpy as np
import pytest

from common.reports import leaderboard, result_tables
from common.reports.configurations import against_best, configurations, decisive, tidy
from common.reports.study_report import write_report
from common.scoring.uncertainty import holm, paired_difference
from tests.support.studies import KINDS, make_runs, make_study


def tabled(kind):
    study, runs, _, scores = KINDS[kind]()
    return study, configurations(study, tidy(study, runs), scores), scores


def test_the_best_comes_first_and_all_others_are_compared_with_it():
    study, table, scores = tabled("techniques")
    first, *others = leaderboard.leaderboard(study, table, scores)["rows"]
    top = table.loc[table["validation"].idxmax()]
    assert first["technique"] == top["technique"] and first["best"] == "best" and "p" not in first
    assert [row["test_f1"] for row in others] == sorted((row["test_f1"] for row in others), reverse=True)
    tests = against_best(study, table, scores)
    assert list(tests["p_holm"]) == list(holm(tests["p"])) and len(tests) == 5
    for row in others:
        index = table.index[table["technique"] == row["technique"]][0]
        assert row["difference"] == round(tests.loc[index, "difference"], 1)
        assert row["p_holm"] == round(tests.loc[index, "p_holm"], 4) >= row["p"]
        assert row["low"] <= row["difference"] <= row["high"] and "best" not in row
    assert first["seeds"] == 3 and first["test_f1_low"] < first["test_f1"] < first["test_f1_high"]
    ia3 = next(row for row in others if row["technique"] == "IA3")
    assert ia3["trainable_parameters"] == 14_000 and ia3["trainable_percent"] == 0.0619
    assert ia3["evaluation_samples_per_second"] == 32.0


def test_nothing_is_compared_with_another_one_than_the_best():
    study, table, scores = tabled("techniques")
    best = table.loc[table["validation"].idxmax()]
    held = {run: each for run, each in scores.items() if run not in best["run_ids"]}
    first, *others = leaderboard.leaderboard(study, table, held)["rows"]
    assert first["technique"] == best["technique"] and first["best"] == "best"
    assert others and not any("difference" in row for row in others)


def test_a_stage_of_several_sizes_does_not_decide_where_another_one_can():
    rows = [
        {"technique": technique, "stage": stage, "max_train_samples": size, "quality": quality, "seed": seed}
        for stage, sizes in (("full", [3000]), ("data", [200, 3000]))
        for technique, quality in (("LoRA", 0.6), ("IA3", 0.5))
        for size in sizes
        for seed in (1, 2)
    ]
    study = make_study("s", axes=["max_train_samples"])
    runs, _, scores = make_runs(rows)
    table = configurations(study, tidy(study, runs), scores)
    assert set(decisive(table, study["axes"])["stage"]) == {"full"}
    found = leaderboard.leaderboard(study, table, scores)
    assert [row["technique"] for row in found["rows"]] == ["LoRA", "IA3"]
    assert {row["max_train_samples"] for row in found["rows"]} == {3000}
    curves = leaderboard.learning_curves(study, table, scores)["rows"]
    assert [(row["technique"], row["max_train_samples"]) for row in curves] == [
        ("LoRA", 200), ("LoRA", 3000), ("IA3", 200), ("IA3", 3000),
    ]  # fmt: skip


def test_curves_of_one_technique_are_named_by_what_they_differ_in_whatever_the_order_of_the_axes():
    rows = [
        {"technique": "LoRA", "max_train_samples": size, "learning_rate": rate, "quality": 0.6, "seed": seed}
        for size in (200, 3000)
        for rate in (1e-3, 1e-2)
        for seed in (1, 2)
    ]
    study = make_study("s", axes=["max_train_samples", "learning_rate"])
    runs, _, scores = make_runs(rows)
    table = configurations(study, tidy(study, runs), scores)
    curves = leaderboard.curves(study, table, scores)
    assert [curve.name for curve in curves] == ["lr 1e-3", "lr 1e-2"]


def test_curves_have_points_per_doubling():
    study, table, scores = tabled("sizes")
    rows = leaderboard.learning_curves(study, table, scores)["rows"]
    assert [row["max_train_samples"] for row in rows] == 2 * [2_000, 5_000, 10_000, 25_000]
    mine = [row for row in rows if row["technique"] == "Standard"]
    (slope,) = {row["doubling_slope"] for row in mine}
    line = np.polyfit(
        np.log2([row["max_train_samples"] for row in mine]), [row["test_accuracy"] for row in mine], 1
    )
    assert (
        slope == pytest.approx(line[0], abs=0.06)
        and mine[0]["doubling_low"] < slope < mine[0]["doubling_high"]
    )
    study, table, scores = tabled("techniques")
    assert leaderboard.learning_curves(study, table, scores) is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_are_results_of_the_documentation(kind, tmp_path):
    write_report(tmp_path, *KINDS[kind]())
    for file in tmp_path.glob("*.json"):
        result = result_tables.read(file)
        table = result_tables.markdown(result)
        assert len(table.splitlines()) == 2 + len(result["rows"])
        assert "NaN" not in file.read_text()
    assert "| best" in result_tables.markdown(json.loads((tmp_path / "leaderboard.json").read_text()))
    assert (tmp_path / "learning_curves.json").exists() == (kind == "sizes")


def test_nothing_tested_is_no_leaderboard(tmp_path):
    (tmp_path / "leaderboard.json").write_text("{}")
    write_report(tmp_path, make_study("s"), *make_runs([{"technique": "LoRA", "status": "failed"}]))
    assert not (tmp_path / "leaderboard.json").exists()


@pytest.mark.long
def test_the_report_says_what_each_costs_and_how_scores_rise(tmp_path):
    write_report(tmp_path, *KINDS["sizes"]())
    text = (tmp_path / "report.md").read_text()
    assert "## How the score rises with the data" in text and "points per doubling" in text
    write_report(tmp_path, *KINDS["techniques"]())
    text = (tmp_path / "report.md").read_text()
    assert "## What each one costs" in text and "## How the score rises" not in text


def test_a_comparison_is_that_of_the_library():
    study, table, scores = tabled("generative")
    tests = against_best(study, table, scores)
    (index,) = tests.index
    best = next(i for i in table.index if i != index)
    each = {i: 100 * np.array([scores[run]["f1"] for run in table.loc[i, "run_ids"]]) for i in table.index}
    found = paired_difference(each[index], each[best])
    assert tests.loc[index, "p_holm"] == found["p"] and tests.loc[index, "difference"] == found["difference"]
