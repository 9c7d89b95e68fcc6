"""Saved models become one: means of updates are exact where they are said to be, and nothing that does not fit is merged."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from peft import (
    LoraConfig,
    VBLoRAConfig,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file

from common.errors import UserError
from common.models import base, bundles, merging, methods, saving
from common.models.families import FAMILIES
from common.models.merging import Recipe, Saved, combine
from tests.support.questions import EXAMPLES
from tests.support.techniques import DECLARED, TECHNIQUES

BERT = FAMILIES["bert"]


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(technique, seed, further fields of the config) → a saved model with its base, whose trained tensors are random."""
    folder, made = tmp_path_factory.mktemp("merging"), {}
    checkpoint = base.resolve_checkpoint(tiny("bert"))
    print_ = saving.save_base(checkpoint, folder / "base")

    def build(technique="lora", seed=0, **fields):
        key = (technique, seed, str(sorted(fields.items())))
        if key in made:
            return made[key]
        place = folder / str(len(made))
        model, tokenizer = base.load_base(checkpoint)
        method = TECHNIQUES[technique]().method(BERT)
        method = replace(method, **fields) if fields else method
        model = base.apply(method, model, BERT)
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.copy_(parameter + 0.1 * torch.randn(parameter.shape))
        info = bundles.BundleInfo(
            TECHNIQUES[technique].name, "bert", "tiny", print_ if method else "", "extractive-qa", "QuestionAnswering", {}
        )  # fmt: skip
        own = method if isinstance(method, methods.Method) else None
        saving.save_bundle(place, info, model, tokenizer, own)
        if method is not None:
            shutil.copytree(folder / "base", place / "base")
        made[key] = Saved(f"{technique}-{seed}", place)
        return made[key]

    return build


def merged(models, recipe, folder):
    """The folder of the merged model, ready to be loaded."""
    combine(models, recipe, folder)
    shutil.copy(models[0].bundle / bundles.BUNDLE, folder)
    if not (folder / "base").is_dir():
        shutil.copytree(models[0].bundle / "base", folder / "base")
    return folder


def weights(bundle):
    """Every weight of the plain model that a saved one is as a whole."""
    return dict(bundles.load_bundle(bundle, merge=True)[0].named_parameters())


def mean_of_weights(models, share=None):
    each = [weights(model.bundle) for model in models]
    share = share or [1 / len(models)] * len(models)
    return {name: sum(w * one[name] for w, one in zip(share, each, strict=True)) for name in each[0]}


def close(one, other):
    return one.keys() == other.keys() and all(
        torch.allclose(one[name], other[name], atol=1e-5) for name in one
    )


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("how", ["cat", "svd"])
def test_the_exact_mean_of_updates_is_the_mean_of_the_whole_weights(how, rslora, world, tmp_path):
    """A merged rsLoRA that kept its own scaling, as PEFT leaves it, would have updates four times as large."""
    models = [world(seed=seed, **({"use_rslora": True} if rslora else {})) for seed in range(3)]
    recipe = Recipe(how, rank=48 if how == "svd" else None)
    assert close(weights(merged(models, recipe, tmp_path / "m")), mean_of_weights(models))


def test_weights_count(world, tmp_path):
    models = [world(seed=0), world(seed=1)]
    found = weights(merged(models, Recipe("cat", (0.75, 0.25)), tmp_path / "m"))
    assert close(found, mean_of_weights(models, [0.75, 0.25]))


def test_means_of_factors_are_another_model_of_the_same_rank(world, tmp_path):
    models = [world(seed=seed) for seed in range(3)]
    folder = merged(models, Recipe("linear"), tmp_path / "m")
    assert not close(weights(folder), mean_of_weights(models))
    assert json.loads((folder / "adapter" / "adapter_config.json").read_text())["r"] == 16
    own, name = load_file(folder / "adapter" / "adapter_model.safetensors"), "query"
    each = [model.tensors() for model in models]
    for factor in ("lora_A", "lora_B"):
        key = next(k for k in own if name in k and factor in k)
        mean = sum(tensors[key] for tensors in each) / 3
        assert torch.allclose(own[key] / own[key].norm(), mean / mean.norm(), atol=1e-6)
    head = "base_model.model.qa_outputs.weight"
    assert torch.allclose(own[head], sum(tensors[head] for tensors in each) / 3)


@pytest.mark.parametrize("how", ["linear", "ties", "magnitude_prune", "cat", "svd", "ties_svd"])
def test_equal_models_merged_are_that_model(how, world, tmp_path):
    first = world(seed=0)
    copies = []
    for i in range(3):
        shutil.copytree(first.bundle, tmp_path / str(i))
        copies.append(Saved(str(i), tmp_path / str(i)))
    recipe = Recipe(how, density=1.0 if how not in ("linear", "cat", "svd") else None)
    assert close(weights(merged(copies, recipe, tmp_path / "m")), weights(first.bundle))


def test_peft_itself_multiplies_equal_adapters_by_their_number(tiny):
    model, _ = base.load_base(base.resolve_checkpoint(tiny("bert")))
    model = get_peft_model(model, LoraConfig(r=4, target_modules=["query"], init_lora_weights=False), "a")
    for name in "bc":
        model.add_adapter(name, model.peft_config["a"])
    layer = model.base_model.model.bert.encoder.layer[0].attention.self.query
    for name in "bc":
        layer.lora_A[name].load_state_dict(layer.lora_A["a"].state_dict())
        layer.lora_B[name].load_state_dict(layer.lora_B["a"].state_dict())
    model.base_model.add_weighted_adapter(list("abc"), [1 / 3] * 3, "m", combination_type="linear")
    assert torch.allclose(layer.get_delta_weight("m"), 3 * layer.get_delta_weight("a"), atol=1e-5)


def test_peft_itself_scales_a_merged_rslora_again(tiny):
    model, _ = base.load_base(base.resolve_checkpoint(tiny("bert")))
    config = LoraConfig(r=4, target_modules=["query"], init_lora_weights=False, use_rslora=True)
    model = get_peft_model(model, config, "a")
    model.add_adapter("b", config)
    layer = model.base_model.model.bert.encoder.layer[0].attention.self.query
    model.base_model.add_weighted_adapter(["a", "b"], [0.5, 0.5], "m", combination_type="cat")
    mean = (layer.get_delta_weight("a") + layer.get_delta_weight("b")) / 2
    assert torch.allclose(layer.get_delta_weight("m"), 8**0.5 * mean, atol=1e-5)


@pytest.mark.parametrize("how", merging.HOWS)
def test_every_method_gives_a_model_that_answers_and_repeats_by_its_seed(how, world, tmp_path):
    models = [world(seed=seed) for seed in range(2)]
    once, again, other = (
        weights(merged(models, Recipe(how, seed=seed), tmp_path / str(i))) for i, seed in enumerate((1, 1, 2))
    )
    assert all(torch.equal(once[name], again[name]) for name in once)
    changed = any(not torch.equal(once[name], other[name]) for name in once)
    assert changed == ("dare" in how)
    assert all(tensor.isfinite().all() for tensor in once.values())


@pytest.mark.parametrize("technique", DECLARED)
def test_the_mean_of_any_technique_and_of_one_model_alone(technique, world, tmp_path):
    models = [world(technique, seed) for seed in range(2)]
    alone = merged(models[:1], Recipe(), tmp_path / "one")
    assert bundles.load_bundle(alone)[0] is not None
    own, first = Saved("", alone).tensors(), models[0].tensors()
    if technique != "lora":
        assert own.keys() == first.keys() and all(torch.equal(own[name], first[name]) for name in own)
        found = Saved("", merged(models, Recipe(), tmp_path / "two")).tensors()
        for name, tensor in models[1].tensors().items():
            mean = (first[name].double() + tensor.double()) / 2
            assert torch.equal(found[name], mean.to(tensor.dtype)), name
    else:
        assert close(weights(alone), weights(models[0].bundle))


def test_scales_are_averaged_as_peft_averages_them(world, tiny, tmp_path):
    models = [world("ia3", seed) for seed in range(2)]
    found = Saved("", merged(models, Recipe(weights=(0.25, 0.75)), tmp_path / "m")).tensors()
    config = TECHNIQUES["ia3"]().method(BERT)
    whole = get_peft_model(base.load_base(base.resolve_checkpoint(tiny("bert")))[0], config, "a")
    whole.add_adapter("b", config)
    for name, model in zip("ab", models, strict=True):
        scales = {k: v for k, v in model.tensors().items() if "ia3_l" in k}
        set_peft_model_state_dict(whole, scales, adapter_name=name)
    whole.base_model.add_weighted_adapter(["a", "b"], [0.25, 0.75], "m")
    theirs = get_peft_model_state_dict(whole, adapter_name="m")
    assert theirs and all(torch.allclose(found[name], scale) for name, scale in theirs.items())


@pytest.mark.parametrize(
    ("models", "recipe", "reason"),
    [
        ([{}, {"seed": 1, "r": 8}], Recipe(), r"Run lora-1 was trained with r 8, run lora-0 with 16.*--method cat or svd"),
        ([{"technique": "loha"}, {"technique": "loha", "seed": 1, "r": 4}], Recipe(), r"merge runs with the same\.$"),
        ([{}, {"seed": 1, "target_modules": ".*query"}], Recipe("cat"), "Run lora-1 was trained with target_modules"),
        ([{"technique": "ia3"}, {"technique": "ia3", "seed": 1}], Recipe("ties"), "ties is for the updates of LoRA, and ia3-0 was"),
        ([{"technique": "ia3"}, {"technique": "ia3", "seed": 1}], Recipe(weights=(1.0, 1.0)), "add up to 2.*must add up to 1"),
        ([{}, {"seed": 1}], Recipe(weights=(1.0,)), "--weights has 1 values for 2 runs"),
        ([{}, {"seed": 1}], Recipe(weights=(1.0, -1.0)), "their sum must be positive"),
        ([{}, {"seed": 1}], Recipe(density=0.5), "--density is for methods that drop values, not for linear"),
        ([{}, {"seed": 1}], Recipe("cat", rank=8), "--rank is for the methods that end in svd, not for cat"),
        ([{}, {"seed": 1}], Recipe("svd", rank=33), "--rank 33 is more than 32"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(models, recipe, reason, world, tmp_path):
    with pytest.raises(UserError, match=reason):
        combine([world(**fields) for fields in models], recipe, tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("how", ["cat", "svd"])
@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": ["query", "word_embeddings"]},
        {"trainable_token_indices": [1, 2]},
        {"bias": "all"},
        {"rank_pattern": {"layer.0.attention.self.query": 2}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_a_file_sets_of_lora_is_in_the_mean_of_updates(how, fields, world, tmp_path):
    """The factors of an embedding lie otherwise than those of a linear layer, and tokens of it can be trained too."""
    models = [world(seed=seed, r=4, **fields) for seed in range(2)]
    folder = merged(models, Recipe(how, rank=8 if how == "svd" else None), tmp_path / "m")
    assert close(weights(folder), mean_of_weights(models))


def test_updates_with_biases_have_means_of_factors_alone(world, tmp_path):
    models = [world(seed=seed, lora_bias=True, target_modules=["query"]) for seed in range(2)]
    with pytest.raises(UserError, match="--method cat is for the updates of LoRA"):
        combine(models, Recipe("cat"), tmp_path / "m")
    found = Saved("", merged(models, Recipe(), tmp_path / "m")).tensors()
    one, other = (model.tensors() for model in models)
    names = [name for name in found if name.endswith("lora_B.bias")]
    assert names and all(torch.allclose(found[n], (one[n] + other[n]) / 2) for n in names)


def test_values_at_other_places_have_no_mean(tiny, tmp_path):
    """A VB-LoRA may save its largest weights alone, and the numbers of the vectors that they are for."""
    checkpoint = base.resolve_checkpoint(tiny("bert"))

    def config():
        sizes = dict(vector_length=8, num_vectors=8)
        return VBLoRAConfig(**sizes, save_only_topk_weights=True, target_modules=["query"])

    for seed in range(2):
        torch.manual_seed(seed)
        model, tokenizer = base.load_base(checkpoint)
        model = base.apply(config(), model, BERT)
        info = bundles.BundleInfo("PEFT VBLORA", "bert", "tiny", "", "extractive-qa", "QuestionAnswering", {})
        saving.save_bundle(tmp_path / str(seed), info, model, tokenizer)
    models = [Saved(f"vblora-{seed}", tmp_path / str(seed)) for seed in range(2)]
    with pytest.raises(
        UserError, match="Run vblora-1 does not fit run vblora-0: its .*topk_indices has other values"
    ):
        combine(models, Recipe(), tmp_path / "m")
    combine([models[0], models[0]], Recipe(), tmp_path / "m")


def test_ranks_may_differ_where_whole_updates_are_combined(world, tmp_path):
    models = [world(seed=0), world(seed=1, r=8)]
    assert close(weights(merged(models, Recipe("cat"), tmp_path / "m")), mean_of_weights(models))


def test_where_nobody_chooses_updates_are_averaged_if_the_technique_has_them(world):
    assert merging.recipe().fitting(world()).how == "cat"
    for fields in ({"use_dora": True}, {"lora_bias": True}):
        assert merging.recipe().fitting(world(**fields)).how == "linear"
    assert merging.recipe("cat").fitting(world(use_dora=True)).how == "cat"


def test_an_unknown_method_is_refused_by_name():
    with pytest.raises(UserError, match="--method is 'mean': choose one of linear, ties"):
        merging.recipe("mean")


def test_answers_come_from_the_merged_model(world, tmp_path):
    """The loaded model computes what its weights say."""
    models = [world(seed=seed) for seed in range(2)]
    folder = merged(models, Recipe("cat"), tmp_path / "m")
    plain, tokenizer, _ = bundles.load_bundle(folder, merge=True)
    adapted, _, _ = bundles.load_bundle(folder)
    asked = tokenizer(EXAMPLES[0]["question"], EXAMPLES[0]["context"], return_tensors="pt")
    with torch.no_grad():
        one, two = plain(**asked).start_logits, adapted(**asked).start_logits
    assert torch.allclose(one, two, atol=1e-4)
