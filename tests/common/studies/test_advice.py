"""Which technique is taken, how sure that is, and how it is said; of made-up scores."""

import json
import re

import numpy as np
import pytest

from common.scoring.uncertainty import holm, paired_difference
from common.studies import advice
from common.studies.advice import Cost, Setting, Tried

QUESTIONS = 400


def tried(technique, mean, examples=900, seed=0, questions=QUESTIONS, spread=0.15, rate=1e-3):
    """Scores around a mean; all techniques find the same questions hard."""
    hard = np.random.default_rng(99).normal(0, 0.2, questions)
    own = np.random.default_rng(seed).normal(0, spread, questions)
    own -= own.mean() + hard.mean()
    values = np.clip(mean / 100 + hard + own, 0, 1)
    return Tried(
        technique, rate, examples, 100 * values.mean(), {f"q{i}": float(v) for i, v in enumerate(values)}
    )


SETTING = Setting("f1", "questions", 1.0, 900, "python scripts/x.py --data_dir d", {})


def test_a_clear_winner_is_decided():
    rungs = [
        [tried("LoRA", 40, 100, 1), tried("IA3", 30, 100, 2), tried("Head", 10, 100, 3)],
        [tried("LoRA", 60, 900, 4), tried("IA3", 50, 900, 5)],
    ]
    made = advice.advise(rungs, {})
    assert (made.take, made.best, made.verdict) == ("LoRA", "LoRA", "decided")
    assert [(each.other, each.examples) for each in made.comparisons] == [("IA3", 900), ("Head", 100)]
    a, b = (100 * np.array(list(each.scores.values())) for each in rungs[1])
    found = paired_difference(a, b)
    assert made.comparisons[0].difference == found["difference"] and made.comparisons[0].low == found["low"]
    assert [each.p_holm for each in made.comparisons] == list(holm([each.p for each in made.comparisons]))
    text = " ".join(advice.sentences(made, {}, SETTING))
    assert text.startswith("Take LoRA, learning rate 0.001: validation F1 ")
    assert "after 900 of 900 training questions. Train it: python scripts/x.py --data_dir d" in text
    assert re.search(r"How sure: decided\. LoRA is ahead of IA3 by \+\d+\.\d points \[\+\d", text)
    assert "after Holm's correction for 2 comparisons" in text and "One seed each" in text


def test_close_and_noisy_is_not_decided_and_says_what_would_decide():
    rungs = [
        [
            tried("LoRA", 51.5, seed=1, questions=60, spread=0.3),
            tried("IA3", 50, seed=2, questions=60, spread=0.3),
        ]
    ]
    made = advice.advise(rungs, {"LoRA": Cost(stored_mib=2.0), "IA3": Cost(stored_mib=0.1)})
    assert made.verdict == "not decided" and made.take == made.best
    (compared,) = made.comparisons
    assert compared.p_holm > 0.05 and compared.low < 0 < compared.high and compared.questions == 60
    text = " ".join(advice.sentences(made, {}, SETTING))
    assert "not decided" in text and "may be as good" in text
    assert f"About {float(f'{compared.to_decide:.2g}'):,.0f} validation questions would decide" in text


def test_examples_that_would_decide_allow_for_all_comparisons():
    """With many comparisons a difference may be found on these examples alone, and not after the correction."""
    rung = [tried(f"technique {i}", 60 - 4 * (i > 0), seed=i + 1, questions=200) for i in range(19)]
    made = advice.advise([rung], {})
    undecided = [each for each in made.comparisons if each.p < 0.05 < each.p_holm]
    assert undecided and all(each.to_decide > each.questions for each in undecided)


def test_a_difference_that_is_too_small_to_count_gives_the_one_that_stores_less():
    rungs = [[tried("LoRA", 60.2, seed=1, spread=0.01), tried("IA3", 60.0, seed=2, spread=0.01)]]
    costs = {"LoRA": Cost(12.0, 2.5, 86.1), "IA3": Cost(12.0, 0.06, 86.1)}
    made = advice.advise(rungs, costs, smallest=1.0)
    assert (made.best, made.take, made.verdict) == ("LoRA", "IA3", "too small to count")
    text = " ".join(advice.sentences(made, costs, SETTING))
    assert "Take IA3" in text and "IA3 stores less" in text
    assert (
        "It costs: one request takes 12.0 ms (median on this machine), its trained weights take 0.06 MiB"
        in text
    )
    assert "the whole model that is served 86.1 MiB" in text
    other = advice.advise(rungs, {"LoRA": Cost(stored_mib=0.01), "IA3": Cost(stored_mib=0.06)}, smallest=1.0)
    assert (other.take, other.verdict) == ("LoRA", "too small to count")
    assert advice.advise(rungs, costs, smallest=0.0).take == "LoRA"


def test_only_techniques_of_the_last_rung_are_taken_for_their_size():
    rungs = [
        [
            tried("LoRA", 30, 100, 1, spread=0.01),
            tried("Head", 29.9, 100, 2, spread=0.01),
            tried("IA3", 29, 100, 3),
        ],
        [tried("LoRA", 60, 900, 4), tried("IA3", 50, 900, 5)],
    ]
    made = advice.advise(
        rungs, {name: Cost(stored_mib=size) for name, size in (("LoRA", 2), ("Head", 0.01), ("IA3", 1))}
    )
    assert made.take == "LoRA" and made.verdict == "decided"


def test_scores_are_paired_by_question():
    one = Tried("LoRA", 1e-3, 100, 60.0, {"a": 1.0, "b": 0.0, "c": 1.0})
    other = Tried("IA3", 1e-3, 100, 30.0, {"c": 0.0, "b": 0.0, "x": 1.0})
    (compared,) = advice.advise([[one, other]], {}).comparisons
    assert compared.questions == 2 and compared.difference == 50


def test_what_more_data_would_bring():
    steep = [
        [tried("LoRA", mean, size, seed)] for mean, size, seed in ((30, 100, 1), (45, 300, 2), (52, 900, 3))
    ]
    made = advice.advise(steep, {})
    assert made.verdict == "alone" and made.overall["slope"] > made.latest["slope"] > 0
    line = np.polyfit(np.log2([100, 300, 900]), [rung[0].score for rung in steep], 1)
    assert made.overall["slope"] == pytest.approx(line[0])
    text = " ".join(advice.sentences(made, {}, SETTING))
    assert "from 100 to 900 training questions LoRA gained" in text and "between the last two amounts" in text
    low, high = made.latest["low"], made.latest["high"]
    assert (
        f"twice as many may bring {low:.1f} to {high:.1f} points. That lies outside of what was measured"
        in text
    )
    assert "nothing was compared" in text


def test_more_data_that_is_not_shown_to_help_is_said_to_be_that():
    flat = [[tried("LoRA", 50, size, seed)] for size, seed in ((100, 1), (300, 2), (900, 3))]
    text = " ".join(advice.sentences(advice.advise(flat, {}), {}, SETTING))
    assert "It is not shown that more data of this kind would raise the score." in text
    one = " ".join(advice.sentences(advice.advise(flat[:1], {}), {}, SETTING))
    assert "there was one amount of data only" in one


def test_all_of_it_is_json_and_lines():
    rungs = [[tried("LoRA", 60, 900, 4), tried("IA3", 50, 900, 5)]]
    setting = Setting("f1", "questions", 1.0, 900, "python x", {"Standard": "stores 86 MiB"}, ["A note."])
    made = advice.advise(rungs, {"LoRA": Cost(5.0, 2.5)})
    found = json.loads(json.dumps(advice.as_json(made, {"LoRA": Cost(5.0, 2.5)}, setting), allow_nan=False))
    assert found["take"] == "LoRA" and found["verdict"] == "decided" and found["command"] == "python x"
    assert found["costs"]["LoRA"]["latency_ms"] == 5.0 and found["excluded"] == {"Standard": "stores 86 MiB"}
    assert "scores" not in found["rungs"][0][0] and found["rungs"][0][0]["technique"] == "LoRA"
    assert found["sentences"][-2:] == ["Excluded: Standard (stores 86 MiB).", "A note."]
    assert advice.rung_lines(made.rungs, [65]) == [
        f"900 examples, 1:05: LoRA {rungs[0][0].score:.1f}, IA3 {rungs[0][1].score:.1f}"
    ]
