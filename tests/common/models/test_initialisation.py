"""Where LoRA starts: the model is the base at first, EVA follows the data, and adapters leave a shared base as it is."""

import json

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file

from common.errors import UserError
from common.models import base as models
from common.models import bundles, initialisation, saving
from common.models.families import FAMILIES
from common.models.global_attention import question
from tests.support import learning
from tests.support.cells import QA, batch_of, build, logits, span_loss, train
from tests.support.techniques import EVERY, technique

STARTS = ["lora, dora", "lora, gaussian", "lora, pissa", "lora, pissa_niter_16", "lora, olora", "lora, eva"]


@pytest.mark.parametrize("name", [*STARTS, "lora, all at once"])
def test_training_starts_from_the_base(name, tiny):
    model, _, batch = build(tiny, name, "bert")
    plain, _, _ = build(tiny, "lora", "bert")
    torch.testing.assert_close(logits(model.eval(), batch), logits(plain.eval(), batch), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["lora, pissa", "lora, pissa_niter_16", "lora, olora", "lora, all at once"])
def test_what_was_taken_out_of_the_base_is_saved_as_twice_the_rank(name, tiny, tmp_path):
    model, _, batch = build(tiny, name, "bert")
    train(model, batch, 3, 3e-3)
    initialisation.save(model, tmp_path)
    made, saved = technique(name), json.loads((tmp_path / "adapter_config.json").read_text())
    scale = made.alpha / (made.r**0.5 if made.rslora else made.r)
    assert saved["r"] == 2 * made.r and saved["lora_alpha"] / saved["r"] == pytest.approx(scale)
    assert saved["init_lora_weights"] is True and not saved["use_rslora"]
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert {t.shape[0] for n, t in tensors.items() if n.endswith("lora_A.weight")} == {2 * made.r}
    assert any("qa_outputs" in n for n in tensors)
    # As anybody loads it, without this suite.
    base, _ = models.load_base(models.resolve_checkpoint(tiny("bert")))
    loaded = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    torch.testing.assert_close(logits(loaded, batch), logits(model, batch), atol=2e-5, rtol=1e-4)


def test_peft_itself_leaves_the_head_out_of_a_converted_adapter(tiny, tmp_path):
    """The reason for a conversion of our own; when this fails, PEFT has fixed it."""
    model, _ = models.load_base(models.resolve_checkpoint(tiny("bert")))
    config = technique("lora, pissa").method(FAMILIES["bert"])
    config.modules_to_save = ["qa_outputs"]
    model = get_peft_model(model, config)
    model.save_pretrained(tmp_path / "start")
    model.save_pretrained(tmp_path / "end", path_initial_model_for_weight_conversion=tmp_path / "start")
    names = load_file(tmp_path / "end" / "adapter_model.safetensors")
    assert names and not any("qa_outputs" in name for name in names)


def test_eva_follows_the_directions_of_the_data_and_moves_rank(tiny):
    plain, tokenizer, batch = build(tiny, "lora", "bert")
    wide = batch | {
        name: torch.nn.functional.pad(batch[name], (0, 7))
        for name in ("input_ids", "attention_mask", "token_type_ids")
    }
    made = []
    for seen in (batch, wide):
        torch.manual_seed(0)
        model, _ = models.load_base(models.resolve_checkpoint(tiny("bert")))
        model = models.apply(technique("lora, eva").method(FAMILIES["bert"]), model, FAMILIES["bert"])
        assert initialisation.needs_data(model)
        initialisation.from_data(model, span_loss, [seen, seen])
        assert not initialisation.needs_data(model)
        made.append(initialisation.layers(model))
    layers, padded = made
    # Padding is no data.
    for name, layer in layers.items():
        a, other = (each.lora_A["default"].weight for each in (layer, padded[name]))
        torch.testing.assert_close(a.mT @ a, other.mT @ other, atol=1e-3, rtol=1e-3)
    ranks = {name: layer.r["default"] for name, layer in layers.items()}
    every = initialisation.layers(plain)
    assert sum(ranks.values()) == 16 * len(every) and len(set(ranks.values())) > 1
    assert {layer.scaling["default"] for layer in layers.values()} == {2.0}

    seen, name = [], "bert.encoder.layer.1.output.dense"
    handle = every[name].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    logits(plain.eval(), batch)
    handle.remove()
    rows = seen[0][batch["attention_mask"].bool()]
    _, _, directions = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    a = layers[name].lora_A["default"].weight
    assert 0 < len(a) == ranks[name]
    cosines = (a[:4] * directions[:4]).sum(1).abs()
    torch.testing.assert_close(cosines, torch.ones(4), atol=1e-2, rtol=0)


def test_eva_leaves_out_what_longformer_fills_its_windows_with(tiny, monkeypatch):
    model, _ = models.load_base(models.resolve_checkpoint(tiny("longformer")))
    model = models.apply(technique("lora, eva").method(FAMILIES["longformer"]), model, FAMILIES["longformer"])
    _, _, batch = build(tiny, "lora", "longformer")
    seen, whole = {}, initialisation._without_padding

    def counted(x, given):
        rows = whole(x, given)
        seen.setdefault(len(rows), []).append(rows)
        return rows

    monkeypatch.setattr(initialisation, "_without_padding", counted)
    initialisation.from_data(model, span_loss, [batch])
    questions = int(question(batch["input_ids"], model.config.sep_token_id).sum())
    real = int(batch["attention_mask"].sum())
    assert seen.keys() == {real, questions} and real < batch["attention_mask"].numel()
    assert len(seen[questions]) == 2, "one input of query_global in each block"


@pytest.mark.parametrize("name", ["lora, biases", "lora, own biases", "lora, pissa", "lora, eva"])
def test_adapters_leave_a_shared_base_as_it_is(name, tiny, tmp_path):
    expected, info = {}, None
    for each in (name, "lora"):
        model, tokenizer, batch = build(tiny, each, "bert")
        train(model, batch, 3, learning.rate("lora"))
        info = bundles.BundleInfo(each, "bert", tiny("bert"), "", "any", QA, {"max_length": 96})
        saving.save_bundle(tmp_path / each, info, model, tokenizer)
        expected[each] = logits(model, batch)
    saving.save_base(models.resolve_checkpoint(tiny("bert")), tmp_path / "base")
    shared = bundles.load_shared_base(tmp_path / "base", info)
    before = {name: tensor.clone() for name, tensor in shared.model.state_dict().items()}
    loaded = {each: bundles.load_bundle(tmp_path / each, shared=shared)[0] for each in expected}
    for each, model in loaded.items():
        torch.testing.assert_close(
            logits(model, batch_of(tokenizer, model.config)), expected[each], atol=2e-5, rtol=1e-4
        )
    after = shared.model.state_dict()
    assert all(tensor.equal(after[name]) for name, tensor in before.items())
    # Only what an adapter brings is in memory twice.
    weight = "encoder.layer.0.attention.self.key"
    base = shared.model.get_submodule(f"bert.{weight}").weight
    same = next(m for n, m in loaded["lora"].named_modules() if n.endswith(weight)).base_layer.weight
    assert same.data_ptr() == base.data_ptr()


@pytest.mark.parametrize("name", ["bitfit", "top-layers", "bottleneck"])
def test_what_a_method_trained_of_a_shared_base_asks_for_no_gradients_there(name, tiny, tmp_path):
    """Other models share these weights, and the fast layers for CPUs are for frozen ones alone."""
    model, tokenizer, _ = build(tiny, name, "bert")
    info = bundles.BundleInfo(name, "bert", tiny("bert"), "", "any", QA, {})
    saving.save_bundle(tmp_path / "bundle", info, model, tokenizer, technique(name).method(FAMILIES["bert"]))
    saving.save_base(models.resolve_checkpoint(tiny("bert")), tmp_path / "base")
    shared = bundles.load_shared_base(tmp_path / "base", info)
    shared.model.requires_grad_(False)
    bundles.load_bundle(tmp_path / "bundle", shared=shared)
    assert not any(parameter.requires_grad for parameter in shared.model.parameters())


def test_what_cannot_be_combined_is_refused_in_one_line(tiny):
    for name, family, remedy in (
        ("lora, olora", "gpt2", "--init pissa"),
        ("lora, biases", "t5", "leave it out"),
        ("lora, own biases", "modernbert", "leave it out"),
    ):
        with pytest.raises(UserError, match=remedy) as refused:
            technique(name).method(FAMILIES[family])
        assert "\n" not in str(refused.value)
    model, _ = models.load_base(models.resolve_checkpoint(tiny("bert")))
    kind = type(technique("lora"))
    with pytest.raises(UserError, match="use --r 32 or less"):
        models.apply(kind(r=40, init="pissa").method(FAMILIES["bert"]), model, FAMILIES["bert"])


def test_every_variant_has_a_run_of_its_own():
    from common.training.fingerprint import of_technique

    found = {of_technique(technique(name), FAMILIES["bert"])["method"] for name in EVERY}
    assert len(found) == len(EVERY)


@pytest.mark.parametrize("name", STARTS + ["lora, all at once"])
def test_a_start_from_the_base_is_tried_without_its_weights(name, tiny):
    method = technique(name).method(FAMILIES["bert"])
    config = models.load_config(models.resolve_checkpoint(tiny("bert")))
    models.check_method(method, config, FAMILIES["bert"], "QuestionAnswering")
    assert method.init_lora_weights == technique(name).method(FAMILIES["bert"]).init_lora_weights
