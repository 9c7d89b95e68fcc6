"""Which point was best, whether the grid ended too early, and how long the rest will take."""

import pytest

from common.studies import checks, declaration, outcomes
from tests.support.declarations import SMALL, rows
from tests.support.techniques import TECHNIQUES

GRID = SMALL | {
    "techniques": {"lora": {"grid": {"learning_rate": [0.001, 0.01, 0.1]}}, "ia3": None},
    "seeds": [1, 2],
}


def scored(found, scores):
    return {row.name: score for row, score in zip(found, scores, strict=True)}


def test_the_best_point_has_the_best_mean_over_its_seeds():
    found = rows(GRID)
    scores = scored(found, [10, 10, 20, 0, 5, 17, 50, None])
    assert outcomes.best_points(found, scores) == {"lora": {"learning_rate": 0.1}, "ia3": {}}


def test_two_names_of_one_technique_have_a_best_point_each():
    grid = {"grid": {"learning_rate": [0.001, 0.01, 0.1]}}
    content = SMALL | {"techniques": {"lora": grid, "LoRA, r 4": grid | {"technique": "lora", "r": 4}}}
    found = rows(content)
    scores = scored(found, [1, 2, 3, 3, 2, 1])
    assert outcomes.best_points(found, scores) == {
        "lora": {"learning_rate": 0.1},
        "LoRA, r 4": {"learning_rate": 0.001},
    }
    assert [sentence.split(":")[0] for sentence in outcomes.edges(found, scores)] == ["LoRA", "LoRA, r 4"]
    assert outcomes.record(found[-1], [], "finished")["technique"] == "LoRA, r 4"


def test_rows_without_a_score_count_for_nothing_and_equals_go_by_order():
    found = rows(GRID)
    scores = scored(found, [None, 12, 12, 12, float("nan"), None, None, None])
    assert outcomes.best_points(found, scores) == {"lora": {"learning_rate": 0.001}}
    assert outcomes.best_points(found, {}) == {}


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([1, 1, 9, 9, 1, 1], None),
        ([9, 9, 1, 1, 1, 1], "0.001, is the lowest that was tried (0.001, 0.01, 0.1); lower values"),
        ([1, 1, 2, 2, 3, 3], "0.1, is the highest that was tried (0.001, 0.01, 0.1); higher values"),
        ([1, 1, 2, 2, None, None], None),
    ],
)
def test_a_best_value_at_the_edge_of_its_grid_is_reported(scores, said):
    found = rows(GRID)[:6]
    sentences = outcomes.edges(found, scored(found, scores))
    assert len(sentences) == bool(said)
    for sentence in sentences:
        assert sentence.startswith("LoRA: the best learning_rate, ") and said in sentence


def test_a_search_has_the_ends_of_its_space_not_those_of_what_was_tried():
    content = SMALL | {
        "techniques": {"lora": {"search": {"learning_rate": {"loguniform": [1e-4, 1e-2]}}}},
        "trials": 2,
    }
    study = declaration.parse(content, "s.yaml", TECHNIQUES)
    (stage,) = study.stages

    def said(*rates):
        proposed = {"lora": [{"learning_rate": rate} for rate in rates]}
        found = declaration.expand(study, stage, None, None, proposed)
        return outcomes.edges(found, scored(found, range(len(found))), stage.searches)

    assert said(5e-4, 2e-3) == []
    (sentence,) = said(5e-4, 9e-3)
    assert "0.009, is near the highest that was searched (0.0001 to 0.01); higher values" in sentence


def test_only_tuned_numbers_have_edges():
    grid = {
        "max_train_samples": [10, 20],
        "model_checkpoint": ["a", "b"],
        "gradient_norms": [True, False],
        "batch_size": [4],
    }
    found = rows(SMALL | {"techniques": ["lora"], "grid": grid})
    assert outcomes.edges(found, scored(found, range(len(found)))) == []


def test_each_axis_is_judged_at_the_best_point():
    found = rows(
        SMALL | {"techniques": ["lora"], "grid": {"learning_rate": [0.1, 0.2, 0.3], "batch_size": [4, 8]}}
    )
    sentences = outcomes.edges(found, scored(found, [0, 0, 0, 9, 8, 0]))
    assert len(sentences) == 1 and "best batch_size, 8, is the highest" in sentences[0]


def test_the_estimate_is_in_proportion_and_by_technique():
    finished = [cost("lora", 100, 50.0), cost("lora", 300, 110.0), cost("ia3", 100, 10.0)]
    assert outcomes.estimate(finished, [work("lora", 1000)]) == pytest.approx(400)
    assert outcomes.estimate(finished, [work("ia3", 50), work("lora", 10)]) == pytest.approx(5 + 4)
    assert outcomes.estimate(finished, [work("loha", 500)]) == pytest.approx(500 * 170 / 500)
    assert outcomes.estimate(finished, []) == 0
    assert outcomes.estimate([], [work("lora", 1)]) is None


def test_the_estimate_counts_whole_rows():
    """Of the rows that are most alike: what is not training is that of those nearest in amount."""
    one = [cost("lora", 100, 2.0, 15.0)]
    assert outcomes.estimate(one, [work("lora", 100)] * 5) == pytest.approx(5 * 15)
    assert outcomes.estimate(one, [work("ia3", 200)]) == pytest.approx(4 + 13)
    assert outcomes.estimate(one, [work("ia3", 200, passed=7.0)]) == pytest.approx(10)
    assert outcomes.estimate(one, [work("ia3", 200, passed=70.0)]) == 0
    several = [
        *one,
        cost("lora", 1000, 20.0, 60.0),
        cost("lora", 1000, 20.0, None),
        cost("ia3", 100, 1, 99.0),
    ]
    assert outcomes.estimate(several, [work("lora", 900)]) == pytest.approx(18 + 40)
    large = [*several, cost("ia3", 100, 50.0, 70.0, "large")]
    assert outcomes.estimate(large, [work("lora", 100, "large")]) == pytest.approx(70)


def work(key, amount, checkpoint="small", passed=0.0):
    return outcomes.Work(key, checkpoint, amount, passed)


def cost(key, amount, training, whole=None, checkpoint="small"):
    return outcomes.Cost(work(key, amount, checkpoint), training, whole)


def test_an_amount_is_epochs_times_the_examples_that_there_are():
    (few, many) = rows(
        SMALL
        | {"techniques": ["lora"], "base": {"num_train_epochs": 3}, "grid": {"max_train_samples": [10, 9999]}}
    )
    assert (outcomes.amount(few, 50), outcomes.amount(many, 50)) == (30, 150)


def test_a_record_has_every_axis_and_leaves_those_that_a_technique_lacks_empty():
    found = rows(
        SMALL | {"techniques": {"lora": {"grid": {"r": [4]}}, "ia3": {"grid": {"learning_rate": [0.5]}}}}
    )
    lora, ia3 = (outcomes.record(row, ["r", "learning_rate"], "failed", None, "why") for row in found)
    assert (lora["r"], lora["learning_rate"], ia3["r"], ia3["learning_rate"]) == (4, None, None, 0.5)
    assert lora["technique"] == "LoRA" and lora["seed"] == 42 and lora["failure"] == "why"
    assert not set(lora) & set(outcomes.columns(["f1"]))


def test_names_show_values_as_people_write_them():
    assert [checks.shown(value) for value in (1e-5, 0.001, 3.0, 8, "all", None)] == [
        "1e-05", "0.001", "3", "8", "all", "None",
    ]  # fmt: skip
