"""Prompts and their labels, windows of long contexts, and the answer that is chosen among them."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.tasks.generative_qa import writing
from common.tasks.generative_qa.writing import Written, choose, windows
from tests.support import odd
from tests.support.generation import EVERY_FAMILY, KINDS, prompts_of
from tests.support.generation import tokenizers as tokenizers
from tests.support.questions import EXAMPLES


@EVERY_FAMILY
def test_only_the_answer_and_its_end_are_trained(family_name, tokenizers):
    tokenizer, kind = tokenizers[family_name], KINDS[family_name]
    prompts = prompts_of(tokenizer, EXAMPLES, kind)
    batch = writing.Collator(tokenizer, kind)([prompts[i] for i in range(len(prompts))])
    for row, example in enumerate(EXAMPLES):
        labels = batch["labels"][row]
        kept = labels[labels != writing.IGNORED]
        text = (example["answers"]["text"] or ["unanswerable"])[0]
        # The end is trained, although GPT-2's padding is the same token.
        assert int(kept[-1]) == tokenizer.eos_token_id
        assert tokenizer.decode(kept[:-1], skip_special_tokens=True).strip() == text
        seen = batch["input_ids"][row][batch["attention_mask"][row].bool()]
        opening = len(writing.begin_of_text(tokenizer))
        seen = seen[opening:]
        prompt = f"context: {example['context']} question: {example['question']} answer:"
        if kind == "decoder":
            assert torch.equal(batch["input_ids"][row, -len(kept) :], kept)
            assert tokenizer.decode(seen[: -len(kept)]) == prompt
            assert batch["position_ids"][row, -1] == opening + len(seen) - 1
        else:
            assert int(seen[-1]) == tokenizer.eos_token_id
            assert tokenizer.decode(seen[:-1]) == prompt


@EVERY_FAMILY
def test_a_decoder_is_padded_on_the_left_and_an_encoder_on_the_right(family_name, tokenizers):
    tokenizer, kind = tokenizers[family_name], KINDS[family_name]
    prompts = prompts_of(tokenizer, EXAMPLES, kind)
    mask = writing.Collator(tokenizer, kind).prompts(prompts.prompts)["attention_mask"]
    assert mask.sum(1).tolist() == prompts.prompt_lengths.tolist() and (mask == 0).any()
    edge = mask[:, -1] if kind == "decoder" else mask[:, 0]
    assert edge.all()


@EVERY_FAMILY
def test_neither_question_nor_answer_is_ever_cut(family_name, tokenizers):
    tokenizer, kind = tokenizers[family_name], KINDS[family_name]
    answer = "on a ridge where two plates drift apart"
    long = {
        "id": "long",
        "question": "Where does Iceland lie, as the heart pumps blood and bees dance in the sun?",
        "context": "The heart pumps blood. " * 20 + f"Iceland lies {answer}." + " Bees dance." * 30,
        "answers": {"text": [answer], "answer_start": [23 * 20 + len("Iceland lies ")]},
    }
    prompts = prompts_of(tokenizer, [long], kind, max_length=72, max_answer_length=20)
    assert len(prompts) > 3 and max(prompts.prompt_lengths) <= 72 and 0 < prompts.holds.sum() < len(prompts)
    for prompt, target, holds in zip(prompts.prompts, prompts.targets, prompts.holds, strict=True):
        text = tokenizer.decode(prompt, skip_special_tokens=True)
        assert text.endswith(f"question: {long['question']} answer:")
        assert (answer in text) == holds
        written = tokenizer.decode(target[:-1], skip_special_tokens=True).strip()
        assert written == (answer if holds else "unanswerable") and target[-1] == tokenizer.eos_token_id
    # v1.1 has no unanswerable questions: a window without the answer teaches nothing.
    assert len(writing.trained(prompts, "v2.0")) == len(prompts)
    assert (
        writing.trained(prompts, "v1.1").holds.all()
        and len(writing.trained(prompts, "v1.1")) == prompts.holds.sum()
    )
    # An answer that is longer than a model may write is left out.
    short = prompts_of(tokenizer, [long], kind, max_length=72, max_answer_length=3)
    assert not writing.trained(short, "v1.1").holds.any() and len(short) == len(prompts)
    with pytest.raises(UserError, match="question long has .* greater --max_length"):
        prompts_of(tokenizer, [long | {"question": "why " * 60}], kind)


@given(st.integers(0, 300), st.integers(2, 60), st.integers(0, 80))
def test_windows_cover_everything_and_share_what_was_asked(length, room, shared):
    found = windows(length, room, shared)
    assert found[0][0] == 0 and found[-1][1] == length
    for (begin, end), (following, its_end) in itertools.pairwise(found):
        assert end - following == min(shared, room // 2) and begin < following and end < its_end
    assert all(end - begin == room for begin, end in found[:-1])
    assert found[-1][1] - found[-1][0] <= room


@settings(max_examples=15, deadline=None)
@given(context=st.text(min_size=1, max_size=300).filter(str.strip))
def test_windows_hold_every_token_of_any_text(tokenizers, context):
    tokenizer = tokenizers["gpt2"]
    prompts = prompts_of(tokenizer, [{"id": "x", "question": "What?", "context": context}], "decoder")
    (head,), (tail,) = (tokenizer([text])["input_ids"] for text in (writing.HEAD, " question: What? answer:"))
    whole = tokenizer(f" {context}")["input_ids"]
    inside = [prompt[len(head) : -len(tail)].tolist() for prompt in prompts.prompts]
    room = 64 - len(head) - len(tail)
    assert [whole[b:e] for b, e in windows(len(whole), room, 8)] == inside


@pytest.mark.parametrize(
    ("family_name", "first", "last"),
    [
        ("gpt2", None, None),
        ("qwen2", None, None),
        ("llama", "<s>", None),
        ("gemma", "<bos>", None),
        ("t5", None, "</s>"),
        ("mt5", None, "</s>"),
        ("bart", "<s>", "</s>"),
    ],
)
def test_a_prompt_begins_and_ends_as_the_texts_of_its_family(family_name, first, last, tokenizers):
    tokenizer, kind = tokenizers[family_name], KINDS[family_name]
    prompts = prompts_of(tokenizer, EXAMPLES, kind)
    assert len(prompts) >= len(EXAMPLES)
    for ids, target in zip(prompts.prompts, prompts.targets, strict=True):
        tokens = tokenizer.convert_ids_to_tokens(ids)
        special = [i for i, token in enumerate(tokens) if token in tokenizer.all_special_tokens]
        assert special == [0] * bool(first) + [len(tokens) - 1] * bool(last)
        assert not first or tokens[0] == first
        assert not last or tokens[-1] == last
        written = tokenizer.convert_ids_to_tokens(target)
        assert written[-1] == tokenizer.eos_token
        # An encoder-decoder writes a text of its own.
        assert (written[0] == first) == (family_name == "bart")


def test_no_answer_wins_only_where_no_window_answers():
    written = Written(
        ["unanswerable", "blood", "Unanswerable.", "oxygen", "unanswerable", "unanswerable", ""],
        np.log([0.99, 0.3, 0.9, 0.4, 0.9, 0.6, 0.7]),
        np.arange(7),
    )
    first, second, third = choose(written, np.array([0, 0, 0, 0, 1, 1, 2]), ["a", "b", "c"])
    assert (first.id, first.text) == ("a", "oxygen") and first.score == pytest.approx(0.4)
    assert (second.text, third.text) == ("", "") and second.score == pytest.approx(0.6)


def test_a_window_holds_an_answer_whose_ends_no_token_has():
    """A tokenizer that drops accents and zero-width characters took such answers for unanswerable."""
    tokenizer = odd.tokenizer("wordpiece")
    tokenizer.eos_token = "[SEP]"
    text = "\u200bThe heart pumps the cafe\u0301"
    for gold in (text, "\u200bThe", "cafe\u0301", "the cafe\u0301"):
        example = question_on(text, gold)
        prompts = prompts_of(tokenizer, [example], "encoder-decoder")
        assert prompts.holds.tolist() == [True]
    long = question_on(f"{'The heart ' * 30}{text}{' The heart' * 30}", "cafe\u0301")
    prompts = prompts_of(tokenizer, [long], "encoder-decoder")
    assert len(prompts) > 2 and 0 < prompts.holds.sum() < len(prompts)


def question_on(context, gold):
    answers = {"text": [gold], "answer_start": [context.index(gold)]}
    return {"id": "0", "question": "What?", "context": context, "answers": answers}
