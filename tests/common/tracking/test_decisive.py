"""What a comparison says of its own power."""

import re

import numpy as np
import pandas as pd
import pytest

from common.scoring import power
from common.tasks.table import TASKS
from common.tracking import decisive, replicates
from common.tracking.comparison import compare
from tests.common.tracking.test_comparison import run

QA = TASKS["extractive-qa"]


def compared(runs):
    """(table, scores) of {run id: (scores, columns that differ)}, the first one the best."""
    rows = [
        run(name, test_f1=100 * scores.mean(), test_exact_match=0.0, **values)
        for name, (scores, values) in runs.items()
    ]
    scores = {name: each for name, (each, _) in runs.items()}
    return compare(pd.DataFrame(rows), scores), scores


@pytest.fixture(scope="module")
def questions():
    return np.random.default_rng(0).random((6, 500))


def test_the_smallest_difference_is_that_of_the_paired_scores(questions):
    best, other = questions[0] * 0.5 + 0.5, questions[1] * 0.5
    table, scores = compared({"a": (best, {}), "b": (other, {"technique": "IA3"})})
    assert np.isnan(table["f1_detectable"][0])
    assert table["f1_detectable"][1] == pytest.approx(100 * power.smallest_difference(best - other))
    (line,) = decisive.sentences(table, scores, QA)
    assert (
        f"500 test questions show a true difference in F1 of {table['f1_detectable'][1]:.1f} points" in line
    )


def test_a_tie_says_how_many_more_questions_would_decide_it(questions):
    best = questions[0]
    near = np.clip(best - 0.005 + 0.3 * (questions[1] - questions[1].mean()), 0, 1)
    table, scores = compared({"a": (best, {}), "b": (near, {"technique": "IA3"})})
    first, line = decisive.sentences(table, scores, QA)
    assert "points four times of five" in first and line.startswith("IA3, ")
    more, whole = (int(n.replace(",", "")) for n in re.findall(r"[\d,]+(?= more| in all)", line))
    wanted = power.examples_to_decide(best - near)
    assert wanted <= whole < 1.1 * wanted and whole > more > 0 and "other seeds would show" in line


def test_seeds_are_counted_where_some_were_tried(questions):
    names = {f"l{i}": (questions[i], {"seed": float(i)}) for i in range(2)}
    names |= {f"i{i}": (questions[2 + i], {"seed": float(i), "technique": "IA3"}) for i in range(2)}
    table, scores = compared(names)
    spread = decisive.seed_spread(table, scores)
    assert spread.freedom == 2
    expected = np.mean([np.var([questions[k].mean(), questions[k + 1].mean()], ddof=1) for k in (0, 2)])
    assert spread.variance == pytest.approx(expected)
    ties = decisive.sentences(table, scores, QA)[1:]
    assert ties and all("between these seeds" in line and "seeds" in line.split(";")[1] for line in ties)


def test_runs_that_differ_in_a_rank_too_are_no_seeds(questions):
    """Two LoRA runs with one learning rate, of ranks 4 and 64: their difference is not the seeds'."""
    settings = [{"r": str(rank), "learning_rate": "0.001", "seed": str(rank)} for rank in (4, 64)]
    ranks = [replicates.settings_digest(each) for each in settings]
    other = {"run_name": "b", "output_dir": "elsewhere", "resume": "True", "data_dir": "moved"}
    assert replicates.settings_digest(settings[0] | other | {"seed": "7"}) == ranks[0] != ranks[1]
    runs = {f"l{i}": (questions[i], {"seed": float(i), "settings": ranks[i]}) for i in range(2)}
    table, scores = compared(runs)
    assert decisive.seed_spread(table, scores) is None
    assert all("other seeds would show" in line for line in decisive.sentences(table, scores, QA)[1:])
    table, scores = compared(runs | {"l2": (questions[2], {"seed": 2.0, "settings": ranks[0]})})
    assert decisive.seed_spread(table, scores).freedom == 1


def test_a_difference_that_is_rounding_alone_is_none(questions):
    """Equal on average, but the sums differ in their last digit."""
    best = questions[0] * 0.5
    away = np.tile([0.1, -0.1, 0.3, -0.3, 0.2], 100)
    away[4::5] -= 0.2
    behind = best - (best - away)
    assert behind.any() and 0 < abs(behind.mean()) < 1e-15
    table, scores = compared({"a": (best, {}), "b": (best - away, {"technique": "IA3"})})
    (line,) = decisive.sentences(table, scores, QA)[1:]
    assert "no number of such questions would decide it" in line


def test_equal_runs_and_a_single_run(questions):
    table, scores = compared({"a": (questions[0], {}), "b": (questions[0], {"technique": "IA3"})})
    assert "no number of such questions would decide it" in decisive.sentences(table, scores, QA)[1]
    assert decisive.sentences(*compared({"a": (questions[0], {})}), QA) == []


def test_one_question_shows_nothing():
    table, scores = compared({"a": (np.array([1.0]), {}), "b": (np.array([0.0]), {"technique": "IA3"})})
    assert decisive.sentences(table, scores, QA) == []
