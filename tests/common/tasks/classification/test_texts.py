"""Texts and pairs of texts as tokens."""

import pytest
import torch
from transformers import AutoTokenizer

from common.errors import UserError
from common.tasks.batching import Collator
from common.tasks.classification.texts import make_texts

NAMES = ("a", "b", "c")
PAIR = {"id": "1", "text": "The heart pumps blood.", "text_pair": "Bees dance. " * 30, "label": 2}


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return AutoTokenizer.from_pretrained(tiny("bert"))


def made(tokenizer, examples, **how):
    how = {"max_length": 32, "segment_ids": True, "names": NAMES} | how
    return make_texts(tokenizer, examples, **how)


def test_both_texts_of_a_pair_are_read_and_told_apart(tokenizer):
    ids, segments = (made(tokenizer, [PAIR])[0][name] for name in ("input_ids", "token_type_ids"))
    alone = made(tokenizer, [{"text": PAIR["text"]}])
    # The shorter text is whole; the longer one loses its end.
    assert ids[: alone.lengths[0]].tolist() == alone[0]["input_ids"].tolist()
    assert len(ids) == 32 and ids[-1] == tokenizer.sep_token_id
    assert segments.tolist() == [0] * alone.lengths[0] + [1] * (32 - alone.lengths[0])
    assert not alone[0]["token_type_ids"].any()
    swapped = {"text": PAIR["text_pair"], "text_pair": PAIR["text"]}
    assert made(tokenizer, [swapped])[0]["token_type_ids"].sum() == alone.lengths[0] - 1
    batch = Collator(0)(
        [made(tokenizer, [PAIR])[0], alone[0] | {"labels": made(tokenizer, [PAIR])[0]["labels"]}]
    )
    assert batch["token_type_ids"].sum() == segments.sum()


def test_a_model_without_segments_gets_none(tokenizer):
    assert "token_type_ids" not in made(tokenizer, [PAIR], segment_ids=False)[0]


def test_labels_are_classes_or_a_mark_for_each(tokenizer):
    one = made(tokenizer, [PAIR, {"text": "x", "text_pair": "y"}])
    assert one.labels.tolist() == [2, -100]
    several = [{"text": "x", "label": [0, 2]}, {"text": "y", "label": []}]
    batch = Collator(0)([*made(tokenizer, several, multi_label=True)])
    assert batch["labels"].tolist() == [[1, 0, 1], [0, 0, 0]] and batch["labels"].dtype == torch.float32


def test_a_length_that_leaves_no_word_is_refused(tokenizer):
    with pytest.raises(UserError, match="--max_length is 4: pairs of texts need at least 5 tokens"):
        made(tokenizer, [PAIR], max_length=4)
    assert made(tokenizer, [PAIR], max_length=5).lengths.tolist() == [5]
    with pytest.raises(UserError, match="texts need at least 3"):
        made(tokenizer, [{"text": "x"}], max_length=2)
