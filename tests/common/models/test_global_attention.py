"""Longformer sees the question whole, wherever its windows end."""

import pytest
import torch
import transformers
from transformers import AutoModelForQuestionAnswering

from common.models import base as models
from common.models import bundles, global_attention, saving
from common.models.families import FAMILIES
from common.tasks.extractive_qa.windows import make_windows
from common.training.refusals import check_model
from common.training.settings import RunArgs
from tests.conftest import make_config
from tests.support.cells import batch_of, build, logits
from tests.support.questions import EXAMPLES
from tests.support.techniques import TECHNIQUES
from tests.support.tokenizers import make_tokenizer


def test_tokens_before_the_first_separator_see_everything():
    ids = torch.tensor([[0, 7, 8, 2, 2, 9, 2, 1], [0, 7, 2, 2, 9, 2, 9, 2]])
    assert global_attention.question(ids, 2).tolist() == [[1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]]


def test_it_is_what_transformers_does_where_that_does_not_refuse(tiny):
    model, tokenizer, batch = build(tiny, "standard", "longformer")
    model.eval()
    plain = AutoModelForQuestionAnswering.from_pretrained(tiny("longformer")).eval()
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(logits(model, batch), logits(plain, batch), rtol=0, atol=0)


def test_a_separator_in_a_text_is_no_reason_to_stop(tiny):
    """transformers refuses the batch; when this fails, it has stopped doing so."""
    model, tokenizer, _ = build(tiny, "lora", "longformer")
    plain = AutoModelForQuestionAnswering.from_pretrained(tiny("longformer"))
    inputs = tokenizer(
        ["Who?", "Who?"], ["Marie </s> Curie", "Bees dance."], padding=True, return_tensors="pt"
    )
    with pytest.raises(AssertionError, match="exactly three separator tokens"):
        plain(**inputs)
    assert model.eval()(**inputs).start_logits.isfinite().all()


def test_a_saved_model_has_it_too(tiny, tmp_path):
    model, tokenizer, batch = build(tiny, "lora", "longformer")
    info = bundles.BundleInfo("LoRA", "longformer", "", "", "extractive-qa", "QuestionAnswering", {})
    saving.save_bundle(tmp_path / "bundle", info, model, tokenizer)
    saving.save_base(models.resolve_checkpoint(tiny("longformer")), tmp_path / "base")
    shared = bundles.load_shared_base(tmp_path / "base", info)
    for settings in ({}, {"merge": True}, {"shared": shared}):
        loaded, _, _ = bundles.load_bundle(tmp_path / "bundle", tmp_path / "base", **settings)
        assert (
            loaded(**tokenizer(["Who?"], ["Marie </s> Curie"], return_tensors="pt"))
            .start_logits.isfinite()
            .all()
        )


def test_far_words_of_the_context_see_the_question(tiny):
    """Of 96 tokens those at the end are no neighbours of the question, which is its first ones."""
    model, tokenizer, _ = build(tiny, "standard", "longformer")
    model.eval()
    context = " ".join(example["context"] for example in EXAMPLES)
    first, second = (
        tokenizer(question, context, truncation="only_second", max_length=96, return_tensors="pt")
        for question in ("Who shared the prize?", "What shared the prize?")
    )
    assert first["input_ids"].shape == second["input_ids"].shape
    with torch.no_grad():
        a, b = (model(**inputs).start_logits[0, -10:] for inputs in (first, second))
        near = {"global_attention_mask": torch.zeros_like(first["input_ids"])}
        c, d = (model(**inputs, **near).start_logits[0, -10:] for inputs in (first, second))
    assert not torch.allclose(a, b, atol=1e-6, rtol=0) and torch.allclose(c, d, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_windows_of_4096_tokens(tmp_path):
    tokenizer = make_tokenizer("longformer")
    config = make_config("longformer", tokenizer)
    config.max_position_embeddings, config.attention_window = 4098, [512, 512]
    transformers.LongformerForQuestionAnswering(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model, tokenizer = models.load_base(models.resolve_checkpoint(str(tmp_path)))
    check_model(TECHNIQUES["lora"](), RunArgs(max_length=4096), FAMILIES["longformer"], model.config)
    context = " ".join(example["context"] for example in EXAMPLES * 60)
    (*_, longest) = sorted(
        make_windows(
            tokenizer,
            [EXAMPLES[0] | {"context": context}],
            max_length=4096,
            doc_stride=128,
            segment_ids=False,
        ).input_ids,
        key=len,
    )
    ids = torch.from_numpy(longest)[None]
    assert ids.shape == (1, 4096)
    with torch.no_grad():
        out = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert out.start_logits.shape == (1, 4096) and out.start_logits.isfinite().all()


def test_other_families_are_left_as_they_are(tiny):
    model, _, _ = build(tiny, "standard", "roberta")
    assert not model._forward_pre_hooks and "global_attention_mask" not in batch_of(
        models.load_tokenizer(models.resolve_checkpoint(tiny("roberta"))), model.config
    )
