"""Decoding against brute force over every pair, and against Hugging Face's published algorithm."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.peers import postprocess_qa_predictions
from common.scoring.squad import f1
from common.tasks.extractive_qa.spans import best_spans, concatenate, decode, tune_null_threshold


def all_spans(start, end, mask, max_answer_length):
    """Every valid span of one window as (score, start, end), best first, then leftmost, then shortest."""
    spans = [
        (np.float32(start[i]) + np.float32(end[j]), i, j)
        for i in range(len(mask))
        for j in range(i, min(i + max_answer_length, len(mask)))
        if mask[i] and mask[j]
    ]
    return sorted((span for span in spans if span[0] > -np.inf), key=lambda s: (-s[0], s[1], s[2]))


def listed(spans, row):
    found = spans.score[row] > -np.inf
    return list(zip(spans.score[row][found], spans.start[row][found], spans.end[row][found], strict=True))


@st.composite
def batches(draw):
    """Logits of a small batch, in few distinct values (so that scores tie) or in many, with runs of context."""
    count, length = draw(st.integers(1, 4)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):
        logits = rng.integers(-3, 4, (2, count, length)) * np.array(draw(st.sampled_from([1.0, -0.5, 0.0])))
    else:
        logits = rng.normal(0, draw(st.sampled_from([1e-3, 1.0, 1e4])), (2, count, length))
    if draw(st.booleans()):
        logits[rng.random(logits.shape) < 0.1] = -np.inf
        logits[:, :, 0] = 0
    mask = np.zeros((count, length), dtype=bool)
    for row in mask:
        begin, end = np.sort(rng.integers(0, length + 1, 2))
        row[begin:end] = True
    return *logits.astype(np.float32), mask


@settings(max_examples=300, deadline=None)
@given(batches(), st.integers(1, 25), st.integers(1, 45))
def test_the_n_best_spans_are_those_of_brute_force_in_the_same_order(batch, n_best, max_answer_length):
    start, end, mask = batch
    spans = best_spans(start, end, mask, n_best, max_answer_length)
    assert spans.score.shape == spans.start.shape == spans.end.shape == (len(mask), n_best)
    for row in range(len(mask)):
        assert listed(spans, row) == all_spans(start[row], end[row], mask[row], max_answer_length)[:n_best]
    assert np.array_equal(spans.null_score, start[:, 0] + end[:, 0])


def test_types_and_defaults():
    spans = best_spans(np.zeros((2, 5)), np.zeros((2, 5)), np.ones((2, 5), dtype=bool), windows=[7, 3])
    assert (spans.score.dtype, spans.start.dtype, spans.end.dtype) == (np.float32, np.int32, np.int32)
    assert (spans.null_score.dtype, spans.window.tolist()) == (np.float32, [7, 3])
    assert spans.score.shape == (2, 20)


def test_logits_outside_the_context_are_never_read():
    rng = np.random.default_rng(0)
    start, end = rng.normal(size=(2, 3, 30)).astype(np.float32)
    mask = np.zeros((3, 30), dtype=bool)
    mask[:, 10:25] = True
    read = mask.copy()
    read[:, 0] = True
    loud = [np.where(read, logits, np.nan) for logits in (start, end)]
    expected, found = best_spans(start, end, mask), best_spans(*loud, mask)
    for field in dataclasses.fields(expected):
        assert np.array_equal(getattr(expected, field.name), getattr(found, field.name))


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf])
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("token", [0, 4, 8])
def test_broken_logits_are_refused_by_window(value, which, token):
    logits = np.zeros((2, 3, 9), dtype=np.float32)
    logits[which, 1, token] = value
    mask = np.ones((3, 9), dtype=bool)
    mask[:, 0] = False
    with pytest.raises(ValueError, match=r"1 of 3 windows .* window 12"):
        best_spans(*logits, mask, windows=[11, 12, 13])


@pytest.mark.parametrize(
    "arguments",
    [
        (np.zeros((2, 5)), np.zeros((2, 4)), np.ones((2, 5), dtype=bool)),
        (np.zeros(5), np.zeros(5), np.ones(5, dtype=bool)),
        (np.zeros((2, 5)), np.zeros((2, 5)), np.ones((2, 5), dtype=bool), 0),
        (np.zeros((2, 5)), np.zeros((2, 5)), np.ones((2, 5), dtype=bool), 20, 0),
        (np.zeros((2, 5)), np.zeros((2, 5)), np.ones((2, 5), dtype=bool), 20, 30, 0, [1]),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ValueError):
        best_spans(*arguments)


def make_questions(rng, questions, longest=120, room=60, overlap=15, scale=1.0):
    """Contexts of words, cut into overlapping windows behind a few question tokens, with random peaky logits."""
    data = {"contexts": [], "ids": [], "offsets": [], "example_index": []}
    for i in range(questions):
        tokens = int(rng.integers(1, longest))
        lengths = rng.integers(1, 8, tokens)
        ends = np.cumsum(lengths + 1) - 1
        words = np.stack([ends - lengths, ends], axis=1).astype(np.int32)
        data["contexts"].append("".join(chr(98 + k % 25) * n + " " for k, n in enumerate(lengths)).rstrip())
        data["ids"].append(f"q{i}")
        for begin in range(0, max(1, tokens - overlap), room - overlap):
            part = words[begin : begin + room]
            none = np.full((4, 2), -1, dtype=np.int32)
            data["offsets"].append(np.concatenate([none, part, none[:1]]))
            data["example_index"].append(i)
    data["example_index"] = np.array(data["example_index"])
    width = max(map(len, data["offsets"]))
    data["mask"] = np.zeros((len(data["offsets"]), width), dtype=bool)
    data["start"], data["end"] = rng.normal(0, scale, (2, *data["mask"].shape)).astype(np.float32)
    data["start"][:, 0], data["end"][:, 0] = rng.normal(5, 4, (2, len(data["mask"])))
    for row, window in enumerate(data["offsets"]):
        data["mask"][row, : len(window)] = window[:, 1] >= 0
        context = np.flatnonzero(data["mask"][row])
        for peak in rng.normal(5, 2, 3):
            first = rng.choice(context)
            last = min(first + rng.geometric(0.3) - 1, context[-1])
            data["start"][row, first], data["end"][row, last] = peak + rng.normal(size=2)
    return data


def ours(data, n_best=20, max_answer_length=30, null_threshold=None, rows=None):
    rows = np.arange(len(data["mask"])) if rows is None else rows
    spans = best_spans(
        data["start"][rows], data["end"][rows], data["mask"][rows], n_best, max_answer_length, windows=rows
    )
    return decode(
        spans, data["offsets"], data["example_index"], data["contexts"], data["ids"], n_best, null_threshold
    )


def theirs(data, version_2, threshold=0.0):
    examples = [{"id": i, "context": c} for i, c in zip(data["ids"], data["contexts"], strict=True)]
    width = data["mask"].shape[1]
    features = [
        {
            "example_id": data["ids"][example],
            "offset_mapping": [None if e < 0 else (b, e) for b, e in window.tolist()]
            + [None] * (width - len(window)),
        }
        for example, window in zip(data["example_index"], data["offsets"], strict=True)
    ]
    return postprocess_qa_predictions(
        examples, features, (data["start"], data["end"]), version_2, null_score_diff_threshold=threshold
    )


def brute_force(data, max_answer_length=30):
    """Id → (best score, its text, whether both its ends are among the 20 highest logits of its window)."""
    best = {}
    for row, example in enumerate(data["example_index"]):
        spans = all_spans(data["start"][row], data["end"][row], data["mask"][row], max_answer_length)
        score, i, j = spans[0]
        window = data["offsets"][row]
        visible = (
            i in np.argsort(data["start"][row])[-20:].tolist()
            and j in np.argsort(data["end"][row])[-20:].tolist()
        )
        id_ = data["ids"][example]
        if id_ not in best or score > best[id_][0]:
            best[id_] = score, data["contexts"][example][window[i, 0] : window[j, 1]], visible
    return best


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_answers_are_the_best_and_those_of_hugging_face_where_it_sees_the_best(seed, scale):
    data = make_questions(np.random.default_rng(seed), 150, scale=scale)
    best = brute_force(data)
    for version_2 in (False, True):
        official, _, differences = theirs(data, version_2)
        predictions = ours(data, null_threshold=0.0 if version_2 else None)
        assert [prediction.id for prediction in predictions] == data["ids"]
        seen = 0
        for prediction in predictions:
            score, text, visible = best[prediction.id]
            assert prediction.score == pytest.approx(float(score))
            assert prediction.text in (text, "") if version_2 else prediction.text == text
            if visible:
                seen += 1
                assert prediction.text == official[prediction.id]
                if version_2:
                    difference = prediction.null_score - prediction.score
                    assert difference == pytest.approx(differences[prediction.id], abs=1e-4)
        assert seen > 100
        if version_2:
            assert 0 < sum(prediction.text == "" for prediction in predictions) < len(predictions)


def test_finds_the_best_span_where_the_highest_logits_do_not_pair():
    """All 20 highest starts lie behind all 20 highest ends; the best valid span is made of lower ones."""
    start, end = np.full((2, 1, 60), -5, dtype=np.float32)
    start[0, 40:], end[0, 1:21] = 5, 5
    start[0, 30], end[0, 32] = 1, 1
    mask = np.ones((1, 60), dtype=bool)
    spans = best_spans(start, end, mask, max_answer_length=5)
    assert (spans.start[0, 0], spans.end[0, 0], spans.score[0, 0]) == (30, 32, 2)


@pytest.mark.parametrize("seed", range(4))
def test_n_best_lists_equal_hugging_face_where_it_sees_every_span(seed):
    data = make_questions(np.random.default_rng(seed), 60, longest=14, scale=2.0)
    assert data["mask"].shape[1] <= 20
    for version_2 in (False, True):
        official, official_lists, _ = theirs(data, version_2, threshold=1.5)
        for prediction in ours(data, null_threshold=1.5 if version_2 else None):
            assert prediction.text == official[prediction.id]
            expected = official_lists[prediction.id]
            assert prediction.n_best.text == [entry["text"] for entry in expected]
            assert prediction.n_best.probability == pytest.approx(
                [entry["probability"] for entry in expected], rel=1e-4, abs=1e-7
            )


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.sampled_from([None, -3.0, 0.0, 2.5]))
def test_neither_the_order_nor_the_batching_of_windows_matters(seed, n_best, null_threshold):
    rng = np.random.default_rng(seed)
    data = make_questions(rng, 12, scale=2.0)
    if rng.random() < 0.5:
        data["start"], data["end"] = np.round(data["start"]), np.round(data["end"])
    expected = ours(data, n_best, null_threshold=null_threshold)
    order = rng.permutation(len(data["mask"]))
    parts = [
        best_spans(data["start"][rows], data["end"][rows], data["mask"][rows], n_best, windows=rows)
        for rows in np.array_split(order, 3)
        if len(rows)
    ]
    rest = (data["offsets"], data["example_index"], data["contexts"], data["ids"], n_best, null_threshold)
    assert decode(concatenate(parts), *rest) == expected


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3, 20]), st.sampled_from([None, 0.0]))
def test_predictions_agree_with_themselves(seed, n_best, null_threshold):
    data = make_questions(np.random.default_rng(seed), 15, scale=3.0)
    for prediction, context in zip(ours(data, n_best, 10, null_threshold), data["contexts"], strict=True):
        entries = list(prediction.n_best)
        null = [entry for entry in entries if entry["start"] < 0]
        assert len(null) == (null_threshold is not None)
        assert len(entries) <= n_best + len(null)
        assert len(entries) > len(null)
        assert sum(entry["probability"] for entry in entries) == pytest.approx(1)
        scores = [entry["score"] for entry in entries]
        assert scores == sorted(scores, reverse=True)
        places = [(entry["start"], entry["end"]) for entry in entries]
        assert len(set(places)) == len(places)
        for entry in entries:
            assert entry["text"] == (context[entry["start"] : entry["end"]] if entry["start"] >= 0 else "")
        answer = next(entry for entry in entries if entry["text"] == prediction.text)
        assert (answer["start"], answer["end"]) == (prediction.start, prediction.end)
        assert answer["probability"] == prediction.probability
        assert prediction.score == max(entry["score"] for entry in entries if entry["start"] >= 0)


def one_window(offsets, context, start, end, **options):
    offsets = np.array(offsets, dtype=np.int32)
    mask = offsets[None, :, 1] >= 0
    spans = best_spans(np.array([start]), np.array([end]), mask)
    return decode(spans, [offsets], np.array([0]), [context], ["q"], **options)[0]


def test_a_span_of_several_windows_is_listed_once_with_its_best_score():
    offsets = [np.array([[-1, -1], [0, 3]]), np.array([[-1, -1], [0, 3], [4, 7]])]
    logits = np.array([[0, 1, 0], [0, 3, -9]], dtype=np.float32)
    mask = np.array([[False, True, False], [False, True, True]])
    spans = best_spans(logits, logits, mask)
    (prediction,) = decode(spans, offsets, np.array([0, 0]), ["one two"], ["q"])
    assert prediction.n_best.text == ["one", "one two", "two"]
    assert prediction.n_best.score == [6.0, -6.0, -18.0]


def test_tokens_that_share_their_characters_give_one_span():
    """Byte-level tokenizers cut one character into several tokens, all with its offsets."""
    prediction = one_window([[-1, -1], [0, 1], [0, 1], [1, 2]], "é!", [0, 1, 2, 0], [0, 1, 2, 0])
    assert prediction.n_best.text == ["é", "é!", "!"]
    assert prediction.n_best.score == [4.0, 2.0, 0.0]


def test_spans_without_characters_are_no_answers():
    prediction = one_window([[-1, -1], [3, 3], [4, 6]], "abc de", [0, 9, 1], [0, 9, 1])
    assert prediction.text == " de"
    assert "" not in prediction.n_best.text


def test_ties_go_to_the_first_then_the_shortest_span():
    offsets = [[-1, -1], [0, 1], [2, 3], [4, 5]]
    prediction = one_window(offsets, "a b c", [0, 1, 1, 1], [0, 1, 1, 1])
    assert prediction.n_best.text == ["a", "a b", "a b c", "b", "b c", "c"]
    prediction = one_window(offsets, "a b c", [1, 1, 1, 1], [1, 1, 1, 1], null_threshold=0.0)
    assert prediction.text == "a" and prediction.n_best.text[-1] == ""


@pytest.mark.parametrize("null_threshold", [None, 0.0])
def test_no_context_gives_the_empty_answer(null_threshold):
    prediction = one_window([[-1, -1], [-1, -1]], "", [3, 9], [1, 9], null_threshold=null_threshold)
    assert (prediction.text, prediction.start, prediction.end, prediction.score) == ("", -1, -1, 0.0)
    assert prediction.null_score == 4.0
    assert prediction.probability == (0.0 if null_threshold is None else 1.0)
    listed = dataclasses.replace(prediction, n_best=list(prediction.n_best))
    json.dumps(dataclasses.asdict(listed), allow_nan=False)


@pytest.mark.parametrize("null_threshold", [None, 0.0])
def test_a_question_without_windows_gets_the_empty_answer(null_threshold):
    spans = best_spans(np.zeros((1, 3)), np.zeros((1, 3)), np.array([[False, True, True]]))
    offsets = [np.array([[-1, -1], [0, 1], [2, 3]])]
    first, second = decode(spans, offsets, np.array([1]), ["", "a b"], ["x", "y"], 20, null_threshold)
    assert (first.id, first.text, first.score, first.null_score) == ("x", "", 0.0, 0.0)
    assert (second.id, second.text) == ("y", "a")


def test_the_null_score_is_the_smallest_of_the_windows_as_in_hugging_face():
    logits = np.array([[5, 1], [-2, 1], [0, 1]], dtype=np.float32)
    spans = best_spans(logits, logits, np.array([[False, True]] * 3))
    offsets = [np.array([[-1, -1], [k, k + 1]]) for k in range(3)]
    (prediction,) = decode(spans, offsets, np.zeros(3, dtype=int), ["abc"], ["q"], null_threshold=-7.0)
    assert prediction.null_score == -4.0
    assert (prediction.text, prediction.start) == ("", -1)
    (prediction,) = decode(spans, offsets, np.zeros(3, dtype=int), ["abc"], ["q"], null_threshold=-6.0)
    assert prediction.text == "a"


def test_predictions_survive_pickle_and_json():
    prediction = one_window([[-1, -1], [0, 1], [2, 3]], "a b", [0, 1, 2], [0, 1, 2], null_threshold=0.0)
    assert pickle.loads(pickle.dumps(prediction)) == prediction  # noqa: S301 - its own bytes
    entries = json.loads(json.dumps(list(prediction.n_best)))
    assert entries == prediction.n_best[:] and prediction.n_best[:2] == entries[:2]
    assert set(entries[0]) == {"text", "start", "end", "score", "probability"}
    assert prediction.n_best[-1] == entries[-1]


def mean_f1(predictions, references):
    golds = {reference["id"]: reference["answers"]["text"] for reference in references}
    return np.mean([f1(prediction.text, golds[prediction.id]) for prediction in predictions])


@pytest.mark.parametrize("seed", range(5))
def test_the_tuned_threshold_is_as_good_as_any(seed):
    rng = np.random.default_rng(seed)
    data = make_questions(rng, 40, scale=2.0)
    if seed % 2:
        data["start"], data["end"] = np.round(data["start"]), np.round(data["end"])
    guesses = ours(data, null_threshold=0.0)
    texts = [next(entry["text"] for entry in guess.n_best if entry["text"]) for guess in guesses]
    references = [
        {"id": id_, "answers": {"text": [text] if rng.random() < 0.5 else []}}
        for id_, text in zip(data["ids"], texts, strict=True)
    ]
    tuned = tune_null_threshold(guesses, references)
    reached = mean_f1(ours(data, null_threshold=tuned), references)
    differences = np.array([guess.null_score - guess.score for guess in guesses])
    for threshold in np.concatenate([differences - 1e-6, differences, differences + 1e-6]):
        assert reached >= mean_f1(ours(data, null_threshold=threshold), references) - 1e-9
    for threshold in [0.0, *differences]:
        if abs(threshold) < abs(tuned):
            assert reached > mean_f1(ours(data, null_threshold=threshold), references)


def test_the_threshold_stays_0_where_nothing_is_gained():
    guess = one_window([[-1, -1], [0, 1]], "x", [0, 4], [0, 4], null_threshold=0.0)
    assert tune_null_threshold([guess], [{"id": "q", "answers": {"text": ["x"]}}]) == 0.0
    assert tune_null_threshold([guess], [{"id": "other", "answers": {"text": ["x"]}}]) == 0.0
    assert tune_null_threshold([guess], [{"id": "q", "answers": {"text": []}}]) < -8.0
