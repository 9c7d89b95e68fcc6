"""Virtual tokens: the real ones keep their labels and positions, and what is saved loads again."""

import json

import pytest
import torch
from peft import PeftConfig, PeftModel, PromptEncoderConfig, get_peft_model

from common.errors import UserError
from common.models import base as models
from common.models import bundles, saving
from common.models.families import FAMILIES
from common.models.virtual_tokens import OWN_TYPE, PromptModel
from tests.support.cells import CONFIGS, QA, batch_of, build, logits, loss_of, train, usual_head
from tests.support.techniques import TECHNIQUES

FURTHER = ("albert", "xlm-roberta", "camembert", "bart", "mt5")


@pytest.mark.parametrize("technique", ["prefix-tuning", "prompt-encoder"])
@pytest.mark.parametrize(
    ("family_name", "head"),
    [
        pytest.param(family, head, marks=pytest.mark.long if family in FURTHER else ())
        for family in ("bert", "distilbert", "roberta", "gpt2", "t5", *FURTHER)
        for head in CONFIGS
        if head in FAMILIES[family].heads
    ],
)
def test_virtual_tokens_keep_labels_and_positions_of_the_real_ones(
    technique, family_name, head, tiny, monkeypatch
):
    """A prompt that no attention can see must leave the model as it was: same length, same positions, same loss."""
    if reason := FAMILIES[family_name].refusal(technique, head):
        pytest.skip(reason)
    model, tokenizer, batch = build(tiny, technique, family_name, head)
    model.eval()
    base, _ = models.load_base(models.resolve_checkpoint(tiny(family_name)), head, **CONFIGS[head])
    for name in FAMILIES[family_name].heads[head]:
        base.get_submodule(name).load_state_dict(model.base_model.get_submodule(name).state_dict())
    base.eval()
    pad = torch.nn.functional.pad

    def pad_unseen(tensor, widths, value=None):
        """Every mask with the virtual tokens hidden."""
        unseen = {torch.bool: False, torch.float32: float("-inf")}.get(tensor.dtype, 0)
        return pad(tensor, widths, value=unseen)

    monkeypatch.setattr(torch.nn.functional, "pad", pad_unseen)
    found, loss = logits(model, batch), loss_of(model, batch)
    monkeypatch.undo()
    real = batch["attention_mask"].bool() if head == QA else slice(None)
    torch.testing.assert_close(found[:, real], logits(base, batch)[:, real], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(loss, loss_of(base, batch))


@pytest.mark.parametrize(
    ("family_name", "shape"),
    [
        ("bert", (2, 2, 4, 20, 8)),
        # One block that is passed four times.
        ("albert", (1, 2, 4, 20, 8)),
        # The heads of keys and values, which are fewer than those of queries.
        ("llama", (2, 2, 2, 20, 8)),
        ("gemma", (2, 2, 1, 20, 12)),
        # Two blocks of the encoder, and two of the decoder with two attentions each.
        ("mt5", (6, 2, 4, 20, 6)),
        ("bart", (6, 2, 4, 20, 8)),
    ],
)
def test_a_prefix_has_the_shape_of_keys_and_values(family_name, shape, tiny):
    head = usual_head(family_name)
    model, _ = models.load_base(models.resolve_checkpoint(tiny(family_name)), head)
    family = FAMILIES[family_name]
    model = models.apply(TECHNIQUES["prefix-tuning"]().method(family), model, family, head)
    assert model.prefix().shape == shape


def test_peft_itself_leaves_labels_unshifted(tiny):
    """PEFT's labels point `n` tokens too early with a prompt in front; when this fails, PEFT has fixed it."""
    model, tokenizer = models.load_base(models.resolve_checkpoint(tiny("bert")))
    plain = get_peft_model(model, PromptEncoderConfig(num_virtual_tokens=5, task_type="QUESTION_ANS")).eval()
    batch = batch_of(tokenizer, model.config)
    start, end = batch.pop("labels").unbind(1)
    batch.pop("token_type_ids")
    with torch.no_grad():
        out = plain(**batch, start_positions=start, end_positions=end)
    assert out.start_logits.shape[1] == batch["input_ids"].shape[1] + 5
    shifted = torch.nn.functional.cross_entropy(out.start_logits, start + 5)
    as_given = torch.nn.functional.cross_entropy(out.start_logits, start)
    ends = torch.nn.functional.cross_entropy(out.end_logits, end)
    assert torch.isclose(out.loss, (as_given + ends) / 2) and not torch.isclose(as_given, shifted)


def test_a_prompt_checkpoint_holds_the_encoder_that_is_trained(tiny, tmp_path):
    """PEFT saves the encoder's output for the tokens; continuing from that would train something else."""
    model, _, batch = build(tiny, "prompt-encoder", "bert")
    train(model, batch, 3, 1e-2)
    models.save_trainable(model, tmp_path / "w.safetensors")
    fresh, _, _ = build(tiny, "prompt-encoder", "bert")
    models.load_trainable(fresh, tmp_path / "w.safetensors")
    assert train(fresh, batch, 2, 1e-2) == pytest.approx(train(model, batch, 2, 1e-2), abs=1e-6)
    other, _, _ = build(tiny, "lora", "bert")
    with pytest.raises(UserError, match="another technique"):
        models.load_trainable(other, tmp_path / "w.safetensors")


def test_prompt_model_is_what_virtual_tokens_get(tiny):
    assert isinstance(build(tiny, "prefix-tuning", "bert")[0], PromptModel)


@pytest.mark.parametrize("technique", ["prefix-tuning", "prompt-encoder"])
def test_peft_itself_refuses_saved_virtual_tokens_and_those_of_earlier_versions_load(
    technique, tiny, tmp_path
):
    """It would load them and answer differently."""
    model, tokenizer, batch = build(tiny, technique, "bert")
    before = logits(model.eval(), batch)
    info = bundles.BundleInfo(technique, "bert", tiny("bert"), "", "any", QA, {})
    saving.save_bundle(tmp_path / "bundle", info, model, tokenizer)
    checkpoint = models.resolve_checkpoint(tiny("bert"))
    saving.save_base(checkpoint, tmp_path / "base")
    adapter = tmp_path / "bundle" / "adapter"
    for load in (
        lambda: PeftConfig.from_pretrained(str(adapter)),
        lambda: PeftModel.from_pretrained(models.load_base(checkpoint)[0], str(adapter)),
    ):
        with pytest.raises(
            Exception, match="as this suite computes it .* PEFT's own forward answers otherwise"
        ):
            load()
    new = logits(bundles.load_bundle(tmp_path / "bundle", tmp_path / "base")[0], batch)
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["peft_type"] = config.pop(OWN_TYPE)
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    old = logits(bundles.load_bundle(tmp_path / "bundle", tmp_path / "base")[0], batch)
    assert torch.equal(new, old) and torch.allclose(new, before, atol=1e-5)
