"""What families of models can do, and what is refused from a config."""

import pytest
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
)

from common.errors import UserError
from common.models import base as models
from common.models.families import FAMILIES
from common.training.settings import RunArgs, check_model
from tests.support.cells import CLASSIFICATION
from tests.support.techniques import TECHNIQUES


@pytest.mark.parametrize(
    "family_name", [name for name, family in FAMILIES.items() if CLASSIFICATION in family.heads]
)
def test_what_no_encoder_is_pretrained_with_belongs_to_the_head(family_name, tiny):
    """A layer that stayed at its random start, frozen, would pass unnoticed."""
    encoder = {
        n for n, _ in AutoModelForQuestionAnswering.from_pretrained(tiny(family_name)).named_parameters()
    }
    model = AutoModelForSequenceClassification.from_pretrained(tiny(family_name))
    head = FAMILIES[family_name].heads[CLASSIFICATION]
    new = {name for name, _ in model.named_parameters()} - encoder
    assert all(name.startswith(head) for name in new)
    assert {model.get_submodule(name) for name in head} <= set(model.modules())


@pytest.mark.parametrize(
    ("family_name", "technique"), [(f.model_type, t) for f in FAMILIES.values() for t in f.refuses]
)
def test_what_a_family_cannot_do_is_refused_from_its_config(family_name, technique, tiny):
    config = models.load_config(models.resolve_checkpoint(tiny(family_name)))
    with pytest.raises(UserError, match=family_name):
        check_model(TECHNIQUES[technique](), RunArgs(max_length=64), FAMILIES[family_name], config)


def test_encoders_do_not_write(tiny):
    config = models.load_config(models.resolve_checkpoint(tiny("bert")))
    with pytest.raises(
        UserError,
        match="bert for generative-qa: the family is offered for extractive-qa and classification only",
    ):
        check_model(
            TECHNIQUES["lora"](), RunArgs(task="generative-qa", max_length=64), FAMILIES["bert"], config
        )


def test_position_table_limits_are_known(tiny):
    for family_name, room in (("bert", 128), ("roberta", 128), ("deberta-v2", None)):
        config = models.load_config(models.resolve_checkpoint(tiny(family_name)))
        args = RunArgs(max_length=129)
        if room is None:
            check_model(TECHNIQUES["lora"](), args, FAMILIES[family_name], config)
        else:
            with pytest.raises(UserError, match=f"--max_length {room} or less"):
                check_model(TECHNIQUES["lora"](), args, FAMILIES[family_name], config)
