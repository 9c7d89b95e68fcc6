"""Which layers LoRA updates."""

import pytest

from common.errors import UserError
from common.models import base
from common.models.families import FAMILIES
from common.training.refusals import check
from common.training.settings import RunArgs
from tests.support.techniques import TECHNIQUES

LORA = TECHNIQUES["lora"]


@pytest.mark.parametrize("model_type", ["bert", "modernbert"])
@pytest.mark.parametrize("targets", ["all", "attention", "attention+projection"])
def test_targets_are_the_layers_of_these_roles_and_no_others(tiny, model_type, targets):
    family = FAMILIES[model_type]
    roles = [family.query, family.key, family.value]
    roles += [family.attention_output] * (targets != "attention")
    roles += [family.up, family.down] * (targets == "all")
    model, _ = base.load_base(base.resolve_checkpoint(tiny(model_type)))
    blocks = {n for n, m in model.named_modules() if hasattr(m, "in_features") and ".0." in n}
    expected = {
        name
        for name in blocks
        for role in roles
        if name.endswith(f".{role}")
        # BERT's "output.dense" is the end of "attention.output.dense" too.
        and (
            "attention" in role or "attention" not in name or role in (family.query, family.key, family.value)
        )
    }
    model = base.apply(LORA(targets=targets).method(family), model, family)
    updated = {
        name.removeprefix("base_model.model.").removesuffix(".lora_A")
        for name, _ in model.named_modules()
        if name.endswith(".lora_A")
    }
    if model_type == "modernbert":
        expected = {name for name in blocks if any(name.endswith(f".{role}") for role in roles)}
    assert {name for name in updated if ".0." in name} == expected and expected


def test_an_unknown_target_is_refused():
    with pytest.raises(UserError, match="--targets is 'feet': it must be one of all, attention"):
        check(LORA(targets="feet"), RunArgs())
