"""Virtual tokens: the real ones keep their labels and positions, and what is saved loads again."""

import json

import pytest
import torch
from peft import PeftConfig, PeftModel, PrefixTuningConfig, PromptEncoderConfig, get_peft_model

from common.errors import UserError
from common.models import base as models
from common.models import bundles, cpu_kernels, saving, trainable
from common.models.families import FAMILIES
from common.models.virtual_tokens import GATED_STDS, OWN_TYPE, PREFIX_STD, PromptModel, attention_with_prefix
from tests.support.cells import CONFIGS, QA, batch_of, build, logits, loss_of, train, usual_head
from tests.support.techniques import TECHNIQUES

FURTHER = ("albert", "xlm-roberta", "camembert", "bart", "mt5")


@pytest.mark.parametrize(
    ("technique", "family_name", "head"),
    [
        pytest.param(technique, family, head, marks=pytest.mark.long if family in FURTHER else ())
        for technique in ("prefix-tuning", "prompt-encoder", "prompt-tuning")
        for family in ("bert", "distilbert", "roberta", "gpt2", "t5", *FURTHER)
        for head in CONFIGS
        if head in FAMILIES[family].heads and FAMILIES[family].refusal(technique, head) is None
    ],
)
def test_virtual_tokens_keep_labels_and_positions_of_the_real_ones(
    technique, family_name, head, tiny, monkeypatch
):
    """A prompt that no attention can see must leave the model as it was: same length, same positions, same loss."""
    options = {"gating": False} if technique == "prefix-tuning" else {}
    model, tokenizer, batch = build(tiny, technique, family_name, head, **options)
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
    trainable.save(model, tmp_path / "w.safetensors")
    fresh, _, _ = build(tiny, "prompt-encoder", "bert")
    trainable.load(fresh, tmp_path / "w.safetensors")
    assert train(fresh, batch, 2, 1e-2) == pytest.approx(train(model, batch, 2, 1e-2), abs=1e-6)
    other, _, _ = build(tiny, "lora", "bert")
    with pytest.raises(UserError, match="another technique"):
        trainable.load(other, tmp_path / "w.safetensors")


def test_prompt_model_is_what_virtual_tokens_get(tiny):
    assert isinstance(build(tiny, "prefix-tuning", "bert")[0], PromptModel)


@pytest.mark.parametrize("technique", ["prefix-tuning", "prompt-encoder", "prompt-tuning"])
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
    assert torch.allclose(new, before, atol=1e-5)
    if technique == "prompt-tuning":
        # No earlier version had it.
        return
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["peft_type"] = config.pop(OWN_TYPE)
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    old = logits(bundles.load_bundle(tmp_path / "bundle", tmp_path / "base")[0], batch)
    assert torch.equal(new, old)


GATED_CELLS = pytest.mark.parametrize(
    ("family_name", "head"),
    [
        (family, head)
        for family in sorted(FAMILIES)
        for head in FAMILIES[family].heads
        if head in CONFIGS and FAMILIES[family].refusal("prefix-tuning", head) is None
    ],
)


def gated(tiny, family_name, head=QA, opened=True, **options):
    """A gated prefix whose gates are open by different widths, and a batch for it."""
    model, tokenizer, batch = build(tiny, "prefix-tuning", family_name, head, gating=True, **options)
    if opened:
        with torch.no_grad():
            model.prompt_encoder.gates.normal_()
            model.prompt_encoder.embedding.weight.normal_()
    return model.eval(), tokenizer, batch


@GATED_CELLS
def test_a_gated_prefix_starts_from_the_model_as_it_was(family_name, head, tiny):
    model, _, batch = gated(tiny, family_name, head, opened=False)
    base, _ = models.load_base(models.resolve_checkpoint(tiny(family_name)), head, **CONFIGS[head])
    for name in FAMILIES[family_name].heads[head]:
        base.get_submodule(name).load_state_dict(model.base_model.get_submodule(name).state_dict())
    real = batch["attention_mask"].bool() if head == QA else slice(None)
    assert not model.prompt_encoder.gates.any()
    torch.testing.assert_close(logits(model, batch)[:, real], logits(base.eval(), batch)[:, real])


@GATED_CELLS
def test_a_gated_prefix_learns_and_is_saved_to_the_same_logits(family_name, head, tiny, tmp_path):
    model, tokenizer, batch = gated(tiny, family_name, head, opened=False, prefix_dropout=0.1)
    start = {name: tensor.clone() for name, tensor in trainable.state(model).items()}
    losses = train(model, batch, 12, 1e-2 if head == QA else 3e-3)
    assert losses[-1] < 0.97 * losses[0]
    assert all(not start[name].equal(tensor) for name, tensor in trainable.state(model).items())
    before = logits(model, batch)
    bundle = bundles.BundleInfo("prefix-tuning", family_name, tiny(family_name), "", "any", head, {})
    # As a run saves it: whatever mode the model is in, nothing is left out.
    saving.save_bundle(tmp_path / "bundle", bundle, model.train(), tokenizer)
    saving.save_base(models.resolve_checkpoint(tiny(family_name)), tmp_path / "base", head, **CONFIGS[head])
    loaded = bundles.load_bundle(tmp_path / "bundle", tmp_path / "base")[0]
    torch.testing.assert_close(logits(loaded, batch), before, atol=0, rtol=0)
    trainable.save(model, tmp_path / "w.safetensors")
    fresh, _, _ = gated(tiny, family_name, head, opened=False, prefix_dropout=0.1)
    trainable.load(fresh, tmp_path / "w.safetensors")
    torch.testing.assert_close(logits(fresh.eval(), batch), before, atol=0, rtol=0)


@GATED_CELLS
def test_padding_and_neighbours_do_not_reach_through_an_open_gate(family_name, head, tiny):
    model, _, batch = gated(tiny, family_name, head)
    whole = logits(model, batch)
    for row in range(len(batch["input_ids"])):
        n = int(batch["attention_mask"][row].sum())
        alone = logits(model, {k: v[row : row + 1, :n] for k, v in batch.items() if k != "labels"})
        torch.testing.assert_close(whole[:, row : row + 1, :n], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("causal", [False, True])
def test_a_gated_prefix_is_a_second_softmax_times_its_gate(causal, tiny):
    """By the paper's formula, with a mask, another scaling than the usual one, and T5's bias of positions."""
    model, _, _ = gated(tiny, "t5")
    layers, heads, size = 6, 4, model.peft_config.token_dim // 4
    module = torch.nn.Module()
    module.prefix_layer, module.prefix_gated, module.is_causal = 3, True, causal
    query, key, value = torch.randn(3, 2, heads, 7, size)
    bias, mask = torch.randn(1, heads, 7, 7), torch.ones(2, 1, 7, 7, dtype=torch.bool)
    mask[1, :, :, 5:] = False
    if causal:
        mask = mask.tril()
    prompt = model.prompt_encoder.embedding.weight * model.peft_config.prefix_scale
    keys, values = prompt.view(-1, layers, 2, heads, size)[:, 3].permute(1, 2, 0, 3)
    gate = torch.tanh(model.prompt_encoder.gates[3])[:, None, None]
    scores = (query @ key.mT * 0.5 + bias).masked_fill(~mask, float("-inf"))
    expected = scores.softmax(-1) @ value + gate * ((query @ keys.mT * 0.5).softmax(-1) @ values)
    found, _ = attention_with_prefix(
        module, query, key, value, mask, prefix=model.prefix(), position_bias=bias, scaling=0.5
    )
    torch.testing.assert_close(found, expected.transpose(1, 2), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("family_name", "head"), [("gpt2", "CausalLM"), ("t5", "Seq2SeqLM")])
def test_a_gated_prefix_writes_what_its_forward_pass_believes(family_name, head, tiny):
    torch.manual_seed(0)
    checkpoint, family = models.resolve_checkpoint(tiny(family_name)), FAMILIES[family_name]
    model, _ = models.load_base(checkpoint, head)
    model = models.apply(TECHNIQUES["prefix-tuning"](gating=True).method(family), model, family, head).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
        model.prompt_encoder.embedding.weight.normal_(std=4)
    ids = torch.randint(5, 200, (1, 9))
    texts = []
    for opening in (0.0, 1.0, -1.0):
        torch.nn.init.constant_(model.prompt_encoder.gates, opening)
        wrote = model.generate(
            ids, torch.ones_like(ids), max_new_tokens=6, do_sample=False, eos_token_id=None
        )
        inputs, given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, ids.shape[1]
        if family.kind == "decoder":
            inputs = {"input_ids": wrote, "attention_mask": torch.ones_like(wrote)}
        else:
            inputs["decoder_input_ids"], given = wrote, 1
        with torch.no_grad():
            believed = model(**inputs).logits[:, given - 1 : -1].argmax(-1)
        assert torch.equal(wrote[:, given:], believed)
        texts.append(wrote[0].tolist())
    assert texts[0] != texts[1] != texts[2]


def test_a_part_of_the_prefix_is_left_out_in_training_alone(tiny):
    model, _, _ = build(
        tiny, "prefix-tuning", "bert", gating=False, prefix_dropout=0.25, num_virtual_tokens=500
    )
    model = cpu_kernels.quicken(model).train()
    whole, one, other = model.eval().prefix(), model.train().prefix(), model.prefix()
    assert not one.equal(other) and whole.equal(model.eval().prefix())
    assert ((one == 0).float().mean() - 0.25).abs() < 0.01
    torch.testing.assert_close(one[one != 0], whole[one != 0] / 0.75)


@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_a_prefix_starts_at_its_size_and_moves_by_its_scale(scale, tiny):
    """A step of AdamW has the size of the learning rate."""
    model, _, batch = build(
        tiny, "prefix-tuning", "bert", gating=False, prefix_scale=scale, prefix_dropout=0.0
    )
    before, head = model.prefix().detach(), model.base_model.qa_outputs.weight.detach().clone()
    assert 0.9 * PREFIX_STD < before.std() < 1.1 * PREFIX_STD
    train(model, batch, 1, 1e-4)
    moved = (model.prefix().detach() - before).abs().max()
    assert moved.item() == pytest.approx(1e-4 * scale, rel=0.1)
    moved = (model.base_model.qa_outputs.weight.detach() - head).abs().max()
    assert moved.item() == pytest.approx(1e-4, rel=0.1)


def test_gated_keys_start_at_the_size_of_a_models_own(tiny):
    model, _, _ = build(tiny, "prefix-tuning", "bert", gating=True, prefix_scale=4.0, num_virtual_tokens=200)
    weight = model.prompt_encoder.embedding.weight * 4.0
    keys, values = weight.view(200, 2, 2, -1).unbind(2)
    for part, std in zip((keys, values), GATED_STDS, strict=True):
        assert part.std().item() == pytest.approx(std, rel=0.05)


def test_a_prefix_that_was_saved_before_gates_answers_as_it_did(tiny, tmp_path):
    model, tokenizer, batch = build(tiny, "prefix-tuning", "bert", gating=False)
    before = logits(model.eval(), batch)
    info = bundles.BundleInfo("prefix-tuning", "bert", tiny("bert"), "", "any", QA, {})
    saving.save_bundle(tmp_path / "bundle", info, model, tokenizer)
    saving.save_base(models.resolve_checkpoint(tiny("bert")), tmp_path / "base")
    file = tmp_path / "bundle" / "adapter" / "adapter_config.json"
    config = json.loads(file.read_text())
    for name in ("gating", "prefix_dropout", "prefix_scale"):
        del config[name]
    file.write_text(json.dumps(config))
    loaded = bundles.load_bundle(tmp_path / "bundle", tmp_path / "base")[0]
    torch.testing.assert_close(logits(loaded, batch), before, atol=0, rtol=0)


def test_a_prefix_by_pefts_own_config_is_as_peft_means_it(tiny):
    """Its initial values of zero stay, and it has no gate."""
    model, _ = models.load_base(models.resolve_checkpoint(tiny("bert")))
    config = PrefixTuningConfig(num_virtual_tokens=3, init_weights="zero")
    model = models.apply(config, model, FAMILIES["bert"])
    assert not model.prefix().any() and not model.peft_config.gating


@pytest.mark.parametrize("init", ["vocabulary", "random"])
def test_a_tuned_prompt_starts_among_the_embeddings(init, tiny):
    model, _, _ = build(tiny, "prompt-tuning", "bert", init=init, num_virtual_tokens=400)
    words = model.base_model.get_input_embeddings().weight
    assert model.prompt().std().item() == pytest.approx(words.std().item(), rel=0.1)
    known = (model.prompt()[:, None] == words[None]).all(-1).any(-1)
    assert known.all() if init == "vocabulary" else not known.any()
