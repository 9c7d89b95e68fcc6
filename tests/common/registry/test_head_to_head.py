"""Two models on the same test examples: who may be champion, and the lines that say why."""

import dataclasses

import numpy as np
import pytest

from common.registry.gate import Rules
from common.registry.head_to_head import Contender, contest, sentence

IDS = [f"q{i}" for i in range(60)]
TAGS = {
    "task": "extractive-qa",
    "technique": "LoRA",
    "run_id": "r1",
    "data_name": "quiz",
    "data_fingerprint": "ab" * 32,
}


def contender(name, right, ids=IDS, **fields):
    """One that answers the first `right` of the questions."""
    scores = {id_: float(i < right) for i, id_ in enumerate(ids)}
    return Contender(name, TAGS, scores, latency_ms=40.0, size_mib=90.0, **fields)


NEW, OLD = contender("version 2", 50), contender("version 1", 30)


def test_the_better_one_on_the_same_questions_takes_the_place():
    verdict, lines = contest(NEW, OLD, {}, Rules())
    assert verdict.alias == "champion"
    assert lines[0] == "Champion: version 1, LoRA, run r1."
    assert lines[1].startswith("F1 on the same 60 test questions: 83.33 against 50.00: +33.3 points [")
    assert lines[2:] == [
        "Latency: 40.0 ms against 40.0 ms, which does not count.",
        "Size: 90.0 MiB against 90.0 MiB, which does not count.",
        "Slices: not judged, because the test data is not available.",
    ]
    assert contest(OLD, NEW, {}, Rules())[0].alias == "challenger"


def test_scores_are_matched_by_id_not_by_place():
    backwards = dataclasses.replace(OLD, scores=dict(reversed(OLD.scores.items())))
    assert contest(NEW, backwards, {}, Rules()) == contest(NEW, OLD, {}, Rules())
    half = contender("version 1", 10, IDS[::2])
    _, lines = contest(NEW, half, {}, Rules())
    assert lines[1].startswith("F1 on the same 30 test questions: 83.33 against 33.33")


def test_every_slice_is_listed_and_small_ones_are_not_judged():
    examples = {
        id_: {
            "question": "Who was it?" if i < 40 else "Why was it?",
            "context": "It was Ann.",
            "answers": {"text": ["Ann"], "answer_start": [7]},
        }
        for i, id_ in enumerate(IDS)
    }
    _, lines = contest(NEW, OLD, examples, Rules(min_slice=30))
    who, why = (next(line for line in lines if f"question type: {kind}" in line) for kind in ("who", "why"))
    assert who.split()[3:7] == ["40", "100.0", "against", "75.0"] and who.endswith("at 0.95")
    assert why.split()[3] == "20" and why.endswith("too few to judge")


def test_a_champion_on_other_data_gives_way_to_one_that_passes_its_own_checks():
    other = dataclasses.replace(OLD, tags=TAGS | {"data_fingerprint": "cd" * 32, "data_name": "news"})
    verdict, lines = contest(NEW, other, {}, Rules())
    assert verdict.alias == "champion"
    assert verdict.reasons[0].startswith("version 1 was champion on other data, news (cdcdcdcdcdcd)")
    assert lines[-1] == sentence(verdict.reasons[0])
    broken = dataclasses.replace(NEW, failed=("it does not load",))
    verdict, _ = contest(broken, other, {}, Rules())
    assert verdict.alias == "challenger" and verdict.reasons == ("it does not load",)


@pytest.mark.parametrize(
    "new, old, reason",
    [
        (NEW, dataclasses.replace(OLD, scores=None), "the test predictions of version 1 cannot be read"),
        (dataclasses.replace(NEW, scores=None), OLD, "the test predictions of version 2 cannot be read"),
        (NEW, contender("version 1", 3, ["x", "y"]), "version 1 was tested on other examples"),
    ],
)
def test_on_the_same_data_a_champion_stays_where_nothing_can_be_compared(new, old, reason):
    verdict, lines = contest(new, old, {}, Rules())
    assert verdict.alias == "challenger" and reason in verdict.reasons[-1]
    assert lines[-1].startswith(sentence(reason)[:-1])


def test_sentences_have_a_capital_and_one_full_stop():
    assert [sentence(text) for text in ("it is", "It is.")] == ["It is.", "It is."]
    assert np.isnan(Contender("one", {}, None).latency_ms)
