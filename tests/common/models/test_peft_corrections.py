"""Faults of PEFT's adapters: each correction, and that PEFT has the fault."""

import peft
import pytest
import torch
from peft.tuners.boft import layer as boft
from torch.autograd import gradcheck
from torch.utils import cpp_extension

from common.models import base as models
from common.models import bundles, peft_corrections, peft_kinds, saving
from common.models.families import FAMILIES
from tests.support.cells import QA, batch_of, logits, train


def butterfly(tiny, factors=2):
    model, _ = models.load_base(models.resolve_checkpoint(tiny("bert")))
    config = peft.BOFTConfig(boft_n_butterfly_factor=factors, target_modules=FAMILIES["bert"].linear_layers)
    return model, config


def factors_of(model):
    return {m.boft_R["default"].shape[0] for m in model.modules() if isinstance(m, boft.Linear)}


@pytest.fixture
def no_compiler(monkeypatch):
    """A machine without CUDA's compiler; the list has an entry for each attempt."""
    attempts = []

    def load(**_):
        attempts.append(1)
        raise RuntimeError("CUDA_HOME is not set")

    monkeypatch.setattr(boft, "_FBD_CUDA", None)
    monkeypatch.setattr(cpp_extension, "load", load)
    return attempts


def test_butterfly_factors_do_not_depend_on_a_compiler(tiny, no_compiler):
    model, config = butterfly(tiny, 3)
    assert factors_of(models.apply(config, model, FAMILIES["bert"])) == {3}
    assert not no_compiler


def test_peft_itself_trains_one_factor_where_its_extension_is_not_compiled(tiny, no_compiler):
    model, config = butterfly(tiny, 3)
    with pytest.warns(UserWarning, match="Failed to load the CUDA extension"):
        assert factors_of(peft.get_peft_model(model, config)) == {1}
    assert len(no_compiler) > 1


def test_blocks_become_a_block_diagonal_matrix_with_its_gradient(monkeypatch):
    monkeypatch.setattr(boft, "_FBD_CUDA", peft_corrections.BlockDiagonal)
    torch.manual_seed(0)
    blocks = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    expected = torch.stack([torch.block_diag(*each) for each in blocks])
    assert boft.FastBlockDiag.apply(blocks).equal(expected)
    assert gradcheck(boft.FastBlockDiag.apply, blocks)


def norms_tuned(tiny):
    torch.manual_seed(0)
    model, tokenizer = models.load_base(models.resolve_checkpoint(tiny("bert")))
    config = peft.LNTuningConfig(target_modules=["LayerNorm"])
    return models.apply(config, model, FAMILIES["bert"]), tokenizer


def saved(model, tokenizer, tiny, folder):
    """The folders of a bundle and of its base."""
    info = bundles.BundleInfo("any", "bert", tiny("bert"), "", "any", QA, {})
    saving.save_bundle(folder / "bundle", info, model, tokenizer)
    saving.save_base(models.resolve_checkpoint(tiny("bert")), folder / "base")
    return folder / "bundle", folder / "base"


def test_a_merged_model_with_tuned_norms_has_a_plain_head(tiny, tmp_path):
    model, tokenizer = norms_tuned(tiny)
    batch = batch_of(tokenizer, model.config)
    train(model, batch, 3, 1e-2)
    merged, _, _ = bundles.load_bundle(*saved(model, tokenizer, tiny, tmp_path), merge=True)
    assert type(merged.qa_outputs) is torch.nn.Linear
    torch.testing.assert_close(logits(merged, batch), logits(model, batch), atol=1e-5, rtol=1e-4)


def test_peft_itself_leaves_the_head_in_its_wrapper(tiny):
    model, _ = norms_tuned(tiny)
    assert type(model.merge_and_unload().qa_outputs) is not torch.nn.Linear


def test_types_that_cannot_merge_are_opened_by_the_corrections():
    assert peft_kinds.CANNOT_MERGE <= bundles.CORRECTED <= set(peft_kinds.WORKING)


def test_an_update_that_depends_on_the_input_is_not_merged(tiny, tmp_path):
    torch.manual_seed(0)
    model, tokenizer = models.load_base(models.resolve_checkpoint(tiny("bert")))
    family = FAMILIES["bert"]
    config = peft.LilyConfig(r=2, stride_A=1, num_B=2, target_modules=family.linear_layers)
    model = models.apply(config, model, family)
    batch = batch_of(tokenizer, model.config)
    train(model, batch, 3, 1e-2)
    bundle, base = saved(model, tokenizer, tiny, tmp_path)
    assert not bundles.merges(bundle)
    loaded, _, _ = bundles.load_bundle(bundle, base, merge=True)
    assert logits(loaded, batch).equal(logits(model, batch))
