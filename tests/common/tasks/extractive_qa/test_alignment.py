"""A teacher's logits on a student's tokens: by hand, against windows that are cut alike, and for any words."""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.tasks.distillation import span_divergence
from common.tasks.extractive_qa.alignment import FLOOR, carried_over
from common.tasks.extractive_qa.windows import NO_CONTEXT, Windows, make_windows
from tests.support import odd
from tests.support.tokenizers import TEXT, make_tokenizer

AROUND = [(NO_CONTEXT, NO_CONTEXT)]


def windows(*contexts):
    """Windows of one example, each from its tokens' characters; [CLS], a question's token and [SEP] stand before them."""
    offsets = [np.array([*AROUND * 3, *context, *AROUND], dtype=np.int32) for context in contexts]
    ids = [np.zeros(len(each), dtype=np.int64) for each in offsets]
    none = np.zeros(len(offsets), dtype=np.int64)
    return Windows(ids, None, offsets, none, none, none)


def logits(cls, starts, ends):
    """Of a window with such context tokens; what a teacher says of the question is nobody's."""
    rows = zip([np.log(start) for start in starts], [np.log(end) for end in ends], strict=True)
    around = [(99.0, 98.0)]
    return np.array([(0, 0), *around * 2, *rows, *around]) + [[cls, -cls]]


def odds(of, to, teacher, longest=30):
    """For each window: the odds of [CLS] and of the context's tokens, for (first, last) tokens; the rest is at the floor."""
    found = []
    for rows, offsets in zip(carried_over(teacher, of, to, longest), to.offsets, strict=True):
        assert rows.dtype == np.float32 and rows.shape == (len(offsets), 2)
        assert (rows[[1, 2, -1]] == FLOOR).all()
        found.append(
            tuple(np.exp(rows[[0, *range(3, len(rows) - 1)], side].astype(float)) for side in (0, 1))
        )
    return found


def test_finer_and_coarser_tokens():
    """abcdefgh ijkl: ab cd efgh ijkl for the teacher, abcd ef gh i jkl for the student."""
    of = windows([(0, 2), (2, 4), (4, 8), (9, 13)])
    to = windows([(0, 4), (4, 6), (6, 8), (9, 10), (10, 13)])
    ((first, last),) = odds(of, to, [logits(0.5, [1, 2, 3, 4], [5, 6, 7, 8])])
    assert first == pytest.approx([1, 1 + 2, 3, 0, 4, 0])
    assert last == pytest.approx([1, 5 + 6, 0, 7, 0, 8])


def test_characters_that_no_token_of_the_students_has():
    """At both ends of a context and in a token without characters: an answer goes on to tokens that it shares, as labels do."""
    of = windows([(0, 1), (1, 3), (4, 4), (4, 6), (6, 7)])
    to = windows([(1, 3), (3, 3), (4, 6)])
    ((first, last),) = odds(of, to, [logits(0.5, [2, 3, 1, 5, 7], [3, 5, 1, 7, 2])], longest=2)
    assert first == pytest.approx([1 + 2 * 3 / 8 + 7, 2 * 5 / 8 + 3, 0, 1 + 5])
    assert last == pytest.approx([1 + 3 + 2 * 7 / 12, 5 + 1, 0, 7 + 2 * 5 / 12])
    ((first, last),) = odds(
        windows([(3, 4), (5, 6)]), windows([(0, 4), (2, 3), (5, 6)]), [logits(0, [2, 3], [3, 5])]
    )
    assert first == pytest.approx([1, 2, 0, 3]) and last == pytest.approx([1, 0, 3, 5])


WORDS = [(3 * n, 3 * n + 2) for n in range(6)]
"""ab cd ef gh ij kl."""


def test_answers_outside_of_a_window_are_no_answer_in_it():
    """Whole or in part: an answer has at most two words here, so gh can begin one that ends in the next window."""
    of, to = windows(WORDS), windows(WORDS[:4], WORDS[2:])
    s, e = [2, 3, 5, 7, 11, 13], [17, 19, 23, 29, 31, 37]
    (first, last), (later_first, later_last) = odds(of, to, [logits(0.5, s, e)], longest=2)
    cut = e[4] / (e[3] + e[4])
    assert first == pytest.approx([1 + s[4] + s[5] + s[3] * cut, *s[:3], s[3] * (1 - cut)])
    assert last == pytest.approx([1 + e[4] + e[5], *e[:4]])
    cut = s[1] / (s[1] + s[2])
    assert later_first == pytest.approx([1 + s[0] + s[1], *s[2:]])
    assert later_last == pytest.approx([1 + e[0] + e[1] + e[2] * cut, e[2] * (1 - cut), *e[3:]])


def test_each_character_is_judged_where_it_has_most_context():
    of, to = windows(WORDS[:4], WORDS[2:]), windows(WORDS, WORDS[2:], WORDS[3:])
    teacher = [logits(0.5, [2, 3, 5, 7], [3, 5, 7, 2]), logits(-4, [11, 13, 17, 19], [13, 17, 19, 11])]
    whole, same, rest = odds(of, to, teacher, longest=1)
    assert whole[0] == pytest.approx([1, 2, 3, 5, 13, 17, 19])
    assert whole[1] == pytest.approx([1, 3, 5, 7, 17, 19, 11])
    # Cut alike, and cut out of the second one, of which "ef" is left over.
    assert same[0] == pytest.approx([1, 11, 13, 17, 19]) and same[1] == pytest.approx([1, 13, 17, 19, 11])
    assert rest[0] == pytest.approx([1 + 11, 13, 17, 19]) and rest[1] == pytest.approx([1 + 13, 17, 19, 11])


def test_windows_that_are_cut_alike_have_the_teachers_logits():
    """MPNet's words are BERT's, with other ids and one special token more."""
    bert, mpnet = make_cached("bert"), make_cached("mpnet")
    contexts = [" ".join([text] * 4) for text in TEXT]
    examples = [{"question": "What?", "context": context, "answers": None} for context in contexts]
    cut = dict(doc_stride=12, segment_ids=False)
    to, of = (
        make_windows(bert, examples, max_length=40, **cut),
        make_windows(mpnet, examples, max_length=41, **cut),
    )
    assert len(to) > 2 * len(examples)
    random = np.random.default_rng(0)
    same = [random.normal(scale=5, size=(len(each), 2)) for each in to.offsets]
    teacher = [random.normal(scale=5, size=(len(each), 2)) for each in of.offsets]
    for its, own, there, here in zip(teacher, same, of.offsets, to.offsets, strict=True):
        its[0], its[there[:, 1] != NO_CONTEXT] = own[0], own[here[:, 1] != NO_CONTEXT]
    for rows, own, offsets in zip(carried_over(teacher, of, to, 30), same, to.offsets, strict=True):
        kept = offsets[:, 1] != NO_CONTEXT
        kept[0] = True
        assert np.allclose(rows[kept], (own - own[0])[kept], atol=1e-5) and (rows[~kept] == FLOOR).all()


@cache
def make_cached(kind):
    return odd.tokenizer(kind) if kind in odd.KINDS else make_tokenizer(kind)


KINDS = ["bert", "roberta", "xlm-roberta"]
KNOWN = sorted({word.strip(".,;?") for text in TEXT for word in text.split()})


@settings(max_examples=60)
@given(
    words=st.lists(
        st.sampled_from(KNOWN) | st.text("abehrst", min_size=1, max_size=6), min_size=30, max_size=80
    ),
    pair=st.sampled_from([(one, other) for one in KINDS for other in KINDS]),
    data=st.data(),
)
def test_a_teacher_that_knows_the_answers_teaches_the_labels(words, pair, data):
    """Wherever the windows of both end, as long as an answer is shorter than half of what neighbours share."""
    n = data.draw(st.integers(0, len(words) - 1))
    context, start = " ".join(words), len("".join(f"{word} " for word in words[:n]))
    answers = {"text": [words[n]], "answer_start": [start]}
    example = {"question": "What?", "context": context, "answers": answers}
    of, to = (
        make_windows(make_cached(kind), [example], max_length=length, doc_stride=20, segment_ids=False)
        for kind, length in zip(pair, (64, 56), strict=True)
    )
    teacher = []
    for i, length in enumerate(of.lengths):
        rows = np.full((length, 2), -20.0)
        rows[of.start_positions[i], 0] = rows[of.end_positions[i], 1] = 20.0
        teacher.append(rows)
    taught = [rows.argmax(0).tolist() for rows in carried_over(teacher, of, to, 30)]
    assert taught == [list(label) for label in zip(to.start_positions, to.end_positions, strict=True)]


@settings(max_examples=60)
@given(
    parts=odd.texts(),
    pair=st.sampled_from([(a, b) for a in odd.KINDS for b in odd.KINDS]),
    seed=st.integers(0, 99),
)
def test_no_odds_are_lost_in_any_text(parts, pair, seed):
    """Joined emoji, dropped accents, characters of several tokens: what no token of the student's has adds to no answer."""
    example = {"question": "What?", "context": "".join(parts), "answers": None}
    of, to = (
        make_windows(make_cached(kind), [example], max_length=3000, doc_stride=8, segment_ids=False)
        for kind in pair
    )
    teacher = np.random.default_rng(seed).normal(scale=8, size=(of.lengths[0], 2))
    (rows,) = carried_over([teacher], of, to, 5)
    context = of.offsets[0][:, 1] != NO_CONTEXT
    all_odds = 1 + np.exp(teacher[context] - teacher[0]).sum(axis=0)
    assert np.isfinite(rows).all() and np.exp(rows.astype(float)).sum(axis=0) == pytest.approx(
        all_odds, rel=1e-4
    )
    real = to.offsets[0][:, 0] < to.offsets[0][:, 1]
    assert (rows[1:][~real[1:]] == FLOOR).all()


@pytest.mark.parametrize("temperature", [0.01, 1.0, 100.0])
def test_the_floor_is_no_probability_and_a_number_at_any_temperature(temperature):
    student = torch.zeros(1, 4, 2, requires_grad=True)
    taught = torch.tensor([[[2.0, 0.0], [FLOOR, FLOOR], [0.0, 3.0], [FLOOR, 1.0]]])
    span_divergence(student, taught, torch.ones(1, 4), temperature).backward()
    # The gradient is (student - teacher) / T.
    teacher = 0.25 - student.grad[0] * temperature
    assert torch.allclose(teacher.sum(0), torch.ones(2), atol=1e-5)
    assert (
        torch.allclose(teacher[[1, 3], [0, 0]], torch.zeros(2), atol=1e-6)
        and abs(float(teacher[1, 1])) < 1e-6
    )
