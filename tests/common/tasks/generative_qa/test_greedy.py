"""Greedy decoding: the same tokens as transformers' `generate`, with less that is read and fewer rows in a step."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.tasks.generative_qa import greedy
from common.tasks.generative_qa.greedy import Group, Limits
from tests.support.cells import base
from tests.support.generation import EVERY_FAMILY, HEADS, KINDS

LENGTH = 10
TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=9)


class Decoder:
    """As much of a model as grouping and batching ask for."""

    def __init__(self, width=8, kind="decoder", layer_types=None):
        self.config = type("Config", (), {})()
        self.config.is_encoder_decoder = kind != "decoder"
        self.config.num_hidden_layers, self.config.hidden_size = 1, width
        self.config.layer_types = layer_types


def prompts_of(rows):
    return [np.array(row, dtype=np.int64) for row in rows]


@given(st.lists(TOKENS, max_size=12))
def test_a_group_begins_alike_and_each_prompt_keeps_a_token(rows):
    prompts = prompts_of(rows)
    groups = greedy.groups_of(Decoder(), prompts)
    assert sorted(i for group in groups for i in group.rows) == list(range(len(rows)))
    for group in groups:
        own = [prompts[i] for i in group.rows]
        assert len({row[: group.shared].tobytes() for row in own}) == 1
        assert (group.shared > 0) == (len(own) > 1)
        assert all(group.shared < len(row) <= 2 * max(group.shared, len(row) / 2) for row in own)


def test_questions_on_one_context_share_it_where_a_model_lets_them():
    context, other = list(range(10, 30)), list(range(50, 80))
    prompts = prompts_of([[1, *context, 2, 3], [1, *other, 5], [1, *context, 4], [1, *context, 2, 9]])
    groups = greedy.groups_of(Decoder(), prompts)
    assert sorted((sorted(g.rows.tolist()), g.shared) for g in groups) == [([0, 2, 3], 21), ([1], 0)]
    for model in (Decoder(kind="encoder-decoder"), Decoder(layer_types=["sliding_attention"])):
        assert all(not group.shared for group in greedy.groups_of(model, prompts))


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=20), st.integers(1, 3))
def test_batches_hold_what_there_is_room_for(sizes, processes):
    groups, rows, lengths = [], 0, []
    for n, shared in sizes:
        n = n if shared else 1
        groups.append(Group(np.arange(rows, rows + n), 20 if shared else 0))
        lengths += [600 + 37 * (rows % 7)] * n
        rows += n
    # Room for 8,192 tokens where prompts begin alike, 4,096 elsewhere.
    model, lengths = Decoder(width=8192), np.array(lengths)
    found = []
    for i in range(processes):
        for batch in greedy.batches_of(model, groups, lengths, (i, processes)):
            own = np.concatenate([group.rows for group in batch])
            assert len({group.shared for group in batch}) == 1
            assert len(own) * lengths[own].max() <= (8192 if batch[0].shared else 4096)
            found += own.tolist()
    assert sorted(found) == list(range(rows))


def written_by_generate(model, row, kind, limits):
    """The ids that `generate` writes behind one prompt, and their log-probabilities."""
    ids = torch.from_numpy(row)[None]
    found = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=limits.tokens,
        do_sample=False,
        eos_token_id=limits.end,
        pad_token_id=limits.pad,
        output_logits=True,
        return_dict_in_generate=True,
    )
    logs = torch.cat(found.logits).float().log_softmax(-1).amax(-1)
    return found.sequences[0, -len(logs) :].numpy(), logs.numpy()


@EVERY_FAMILY
def test_the_tokens_are_those_of_generate(family_name, tiny):
    """Five questions on one context, three on another and one alone; the end is a token that some of them write early."""
    model, tokenizer = base(tiny, family_name, HEADS[family_name])
    kind = KINDS[family_name]
    torch.manual_seed(1)
    with torch.no_grad():
        model.get_output_embeddings().weight = torch.nn.Parameter(
            torch.randn(len(tokenizer), model.config.hidden_size) / 50
        )
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(12 if family_name == "bart" else 4)
    model.eval()
    draw = np.random.default_rng(0).integers
    contexts = [draw(5, len(tokenizer), n) for n in (40, 30, 35)]
    prompts = [
        np.concatenate([contexts[which], draw(5, len(tokenizer), n)])
        for which, n in ((0, 4), (0, 7), (0, 5), (1, 3), (1, 6), (0, 9), (1, 8), (2, 5), (0, 4))
    ]
    free = Limits(LENGTH, -1, tokenizer.pad_token_id)
    texts = [written_by_generate(model, row, kind, free)[0] for row in prompts]
    # The token that the most prompts are answered with.
    end = max(set(np.concatenate(texts).tolist()), key=lambda token: sum(token in text for text in texts))
    limits = Limits(LENGTH, int(end), tokenizer.pad_token_id)
    expected = [written_by_generate(model, row, kind, limits) for row in prompts]
    assert len({len(ids) for ids, _ in expected}) > 1

    read, rows = [], []
    model.get_input_embeddings().register_forward_hook(lambda _, args, out: read.append(args[0].shape))
    model.get_output_embeddings().register_forward_hook(
        lambda _, args, out: rows.append(args[0].shape[:2].numel())
    )
    with torch.inference_mode():
        for batch in greedy.batches_of(
            model, greedy.groups_of(model, prompts), np.array([60] * len(prompts))
        ):
            own = [int(i) for group in batch for i in group.rows]
            for i, (ids, logs) in zip(own, greedy.decode(model, prompts, batch, kind, limits), strict=True):
                assert ids.tolist() == expected[i][0].tolist()
                np.testing.assert_allclose(logs, expected[i][1], rtol=2e-3, atol=1e-4)
    # Rows that have ended leave; other families' answers seldom have a token in common that could end them.
    assert sum(rows) < len(prompts) * LENGTH or family_name not in ("gpt2", "t5")
    if kind == "decoder" and family_name != "gemma3_text":
        tokens = sum(batch * length for batch, length in read if length > 1)
        assert tokens < sum(map(len, prompts)) / 1.5


def test_the_end_of_one_row_ends_no_other(tiny):
    """Logits by step, for rows that end at once, at the limit and in between."""
    steps = torch.tensor([[9, 1, 1], [9, 9, 1], [1, 2, 3], [4, 9, 1]])
    asked, kept = [], [torch.arange(4)]

    def logits(n):
        return torch.nn.functional.one_hot(steps[kept[0], n], 10).float()

    def step(new):
        asked.append(new.flatten().tolist())
        return logits(len(asked))

    def keep(which):
        kept[0] = kept[0][which]

    found = greedy._written(step, keep, logits(0), Limits(3, 9, 0))
    assert [ids.tolist() for ids, _ in found] == [[9], [9], [1, 2, 3], [4, 9]]
    # Half of the rows have left before the second step; one more before the third.
    assert asked == [[1, 4], [2]]
