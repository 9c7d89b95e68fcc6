"""Batches of inputs, and the mode and device of a model that computes them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.tasks.batching import Collator, evaluating, length_sorted_batches, tokens_per_batch


def test_items_are_padded_to_the_longest_one_and_labels_stacked():
    items = [{"input_ids": np.arange(n) + 1, "labels": np.int64(n)} for n in (2, 3)]
    batch = Collator(pad_token_id=9)(items)
    assert batch["input_ids"].tolist() == [[1, 2, 9], [1, 2, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["labels"].tolist() == [2, 3] and "token_type_ids" not in batch


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60), st.integers(1, 3))
def test_length_sorted_batches_hold_every_window_once_within_the_budget(lengths, parts):
    lengths = np.array(lengths)
    batches = [batch for i in range(parts) for batch in length_sorted_batches(lengths, 512, (i, parts))]
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or lengths[batch].max() * len(batch) <= 512


def test_a_model_says_how_many_tokens_it_computes_at_once():
    model = torch.nn.Linear(1, 1)
    assert tokens_per_batch(model, torch.device("cpu")) < tokens_per_batch(model, torch.device("cuda"))
    model.tokens_per_batch = 7
    assert tokens_per_batch(model, torch.device("cuda")) == 7


@pytest.mark.parametrize("training", [True, False])
def test_a_model_evaluates_and_returns_to_its_mode_whatever_happens(training):
    model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Dropout()).train(training)
    with pytest.raises(KeyError), evaluating(model) as device:
        assert device.type == "cpu" and not any(module.training for module in model.modules())
        raise KeyError
    assert all(module.training == training for module in model.modules())
