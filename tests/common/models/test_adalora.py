"""AdaLoRA in training: the budget falls to its target, the state goes on, what is saved has the ranks of its weights."""

import copy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import UserError
from common.models import base as models
from common.models import bundles, saving
from common.models.adalora import Budget
from common.models.families import FAMILIES
from common.models.hooks import hook_of
from tests.support.cells import QA, batch_of, build, logits, loss_of
from tests.support.techniques import technique

STEPS = 20


def steps_of(model, batch, hook, numbers, optimizer=None):
    """Train some of the steps; gives the ranks that are left after each."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = optimizer or torch.optim.AdamW(trained, lr=1e-2)
    model.eval()
    left = []
    for step in numbers:
        (loss_of(model, batch) + hook.extra_loss()).backward()
        optimizer.step()
        hook.after_step(step)
        optimizer.zero_grad()
        left.append(sum(int((p != 0).sum()) for n, p in model.named_parameters() if ".lora_E." in n))
    return left


def made(tiny, **settings):
    """(model, batch, its hook), ready to train STEPS steps."""
    torch.manual_seed(0)
    model, tokenizer = models.load_base(models.resolve_checkpoint(tiny("bert")))
    method = replace(technique("adalora"), interval=3, **settings).method(FAMILIES["bert"])
    model = models.apply(method, model, FAMILIES["bert"])
    hook = hook_of(model)
    hook.begin(STEPS)
    return model, batch_of(tokenizer, model.config), hook


def test_only_adalora_has_a_hook(tiny):
    assert isinstance(made(tiny)[2], Budget)
    assert hook_of(build(tiny, "lora", "bert")[0]) is None
    assert hook_of(build(tiny, "standard", "bert")[0]) is None


def test_the_ranks_fall_from_the_first_to_the_last_on_schedule(tiny):
    model, batch, hook = made(tiny)
    layers = sum(".lora_E." in name for name, _ in model.named_parameters())
    left = steps_of(model, batch, hook, range(1, STEPS + 1))
    # 10% of the steps before the first are taken, 40% after the last.
    assert left[1] == 24 * layers and min(left[:11]) < 24 * layers
    assert left[11] == 16 * layers and set(left[11:]) == {16 * layers}
    config = model.peft_config["default"]
    assert (config.total_step, config.tinit, config.tfinal) == (STEPS, 2, 8)
    # Some layers keep more than others.
    assert len({int((p != 0).sum()) for n, p in model.named_parameters() if ".lora_E." in n}) > 1


def test_the_factors_become_orthogonal_as_pefts_loss_makes_them(tiny):
    model, _, hook = made(tiny)
    loss = hook.extra_loss()
    loss.backward()
    factors = {n: p for n, p in model.named_parameters() if ".lora_A." in n or ".lora_B." in n}
    ours = {name: p.grad.clone() for name, p in factors.items()}
    model.zero_grad()
    # As AdaLoraModel.forward computes it, where the model computes the loss.
    expected = 0.0
    for name, p in factors.items():
        covariance = p @ p.T if "lora_A" in name else p.T @ p
        expected = expected + torch.norm(covariance - torch.eye(len(covariance)), p="fro")
    expected = 0.1 * expected / len(factors)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for name, p in factors.items():
        torch.testing.assert_close(ours[name], p.grad, atol=1e-7, rtol=1e-4)


def test_peft_itself_leaves_the_orthogonality_out_of_a_loss_that_it_does_not_compute(tiny):
    """The reason for `extra_loss`; when this fails, PEFT adds it itself."""
    model, batch, _ = made(tiny)
    loss_of(model.eval(), batch).backward()
    # At the beginning E is 0, so that nothing else moves the factors.
    assert not any(p.grad.any() for n, p in model.named_parameters() if ".lora_A." in n or ".lora_B." in n)


@pytest.mark.parametrize("broken_off", [5, 10, 14])
def test_training_goes_on_from_a_stored_state(broken_off, tiny, tmp_path):
    """Before the first rank is taken away, between two allocations, and after the last."""
    whole, batch, hook = made(tiny)
    left = steps_of(whole, batch, hook, range(1, STEPS + 1))
    first, _, hook = made(tiny)
    optimizer = torch.optim.AdamW([p for p in first.parameters() if p.requires_grad], lr=1e-2)
    begun = steps_of(first, batch, hook, range(1, broken_off + 1), optimizer)
    save_file(hook.state(), tmp_path / "hook.safetensors")
    second, _, hook = made(tiny)
    second.load_state_dict(first.state_dict())
    state = copy.deepcopy(optimizer.state_dict())
    optimizer = torch.optim.AdamW([p for p in second.parameters() if p.requires_grad], lr=1e-2)
    optimizer.load_state_dict(state)
    hook.load_state(load_file(tmp_path / "hook.safetensors"))
    ended = steps_of(second, batch, hook, range(broken_off + 1, STEPS + 1), optimizer)
    assert begun + ended == left
    after = whole.state_dict()
    assert all(tensor.equal(after[name]) for name, tensor in second.state_dict().items())


@pytest.mark.parametrize("steps", [4, 10, STEPS])
@pytest.mark.parametrize("merge", [False, True])
def test_a_saved_adapter_has_the_ranks_of_its_weights(steps, merge, tiny, tmp_path):
    """Also where ranks that the last allocation took away have been trained again since, as after 10 steps."""
    model, batch, hook = made(tiny)
    left = steps_of(model, batch, hook, range(1, steps + 1))
    before = logits(model, batch)
    tokenizer = models.load_tokenizer(models.resolve_checkpoint(tiny("bert")))
    info = bundles.BundleInfo("AdaLoRA", "bert", tiny("bert"), "", "any", QA, {"max_length": 96})
    saving.save_bundle(tmp_path / "bundle", info, model, tokenizer)
    saving.save_base(models.resolve_checkpoint(tiny("bert")), tmp_path / "base")
    tensors = load_file(tmp_path / "bundle" / "adapter" / "adapter_model.safetensors")
    assert sum(len(t) for name, t in tensors.items() if name.endswith("lora_E")) == left[-1]
    loaded, _, _ = bundles.load_bundle(tmp_path / "bundle", tmp_path / "base", merge=merge)
    torch.testing.assert_close(logits(loaded, batch), before, atol=2e-5, rtol=1e-4)


def test_peft_itself_drops_ranks_that_were_trained_again(tiny, tmp_path):
    """The reason for `set_ranks`; when this fails, PEFT has fixed it."""
    model, batch, hook = made(tiny)
    steps_of(model, batch, hook, range(1, 11))
    before = logits(model, batch)
    model.save_pretrained(tmp_path)
    from peft import PeftModel

    base, _ = models.load_base(models.resolve_checkpoint(tiny("bert")))
    after = logits(PeftModel.from_pretrained(base, tmp_path).eval(), batch)
    assert (after - before).abs().max() > 1e-4


def test_a_step_that_was_left_out_changes_nothing_but_the_last_allocation(tiny):
    model, batch, hook = made(tiny)
    steps_of(model, batch, hook, range(1, 6))
    loss_of(model, batch).backward()
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad.fill_(float("inf"))
    before = hook.state()
    hook.after_step(6, done=False)
    assert all(tensor.equal(before[name]) for name, tensor in hook.state().items())
    hook.after_step(12, done=False)
    assert sum(
        hook.model.peft_config["default"].rank_pattern[n].count(True) for n in _pattern(hook)
    ) == 16 * len(_pattern(hook))


def _pattern(hook):
    return hook.model.peft_config["default"].rank_pattern


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"r": 24}, "use a smaller --r"),
        ({"initial_share": 0.5, "final_share": 0.5}, "their sum must be"),
    ],
)
def test_a_budget_that_cannot_fall_is_refused(settings, remedy):
    with pytest.raises(UserError, match=remedy) as refused:
        replace(technique("adalora"), **settings).method(FAMILIES["bert"])
    assert "\n" not in str(refused.value)


def test_a_training_that_is_too_short_is_refused(tiny):
    _, _, hook = made(tiny)
    hook.begin(4)
    with pytest.raises(UserError, match="train for more epochs"):
        hook.begin(2)
