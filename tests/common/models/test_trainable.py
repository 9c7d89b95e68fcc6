"""What is trained of a model is saved whole, loaded as it was, and of the number that the technique's formula gives."""

import pytest
import torch

from common.models import trainable
from common.models.families import FAMILIES
from tests.common.models.test_base import CELLS, FILES_ON_BERT
from tests.support.cells import base, build, logits, loss_of
from tests.support.closed_forms import closed_form

# Where EVA puts rank depends on the data (test_initialisation.py).
REPEATABLE = [cell for cell in CELLS if cell.values[0] != "lora, eva"]


@pytest.mark.parametrize(("technique", "family_name", "head"), REPEATABLE + FILES_ON_BERT)
def test_training_goes_on_from_saved_weights_bit_for_bit(technique, family_name, head, tiny, tmp_path):
    def go_on(model, steps):
        torch.manual_seed(1)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        for _ in range(steps):
            loss_of(model.train(), batch).backward()
            optimizer.step()
            optimizer.zero_grad()
        return trainable.state(model)

    stopped, _, batch = build(tiny, technique, family_name, head)
    go_on(stopped, 2)
    trainable.save(stopped, tmp_path / "weights.safetensors")
    again, _, _ = build(tiny, technique, family_name, head)
    trainable.load(again, tmp_path / "weights.safetensors")
    expected, found = go_on(stopped, 2), go_on(again, 2)
    assert expected.keys() == found.keys()
    assert all(tensor.equal(found[name]) for name, tensor in expected.items())
    assert logits(again.eval(), batch).equal(logits(stopped.eval(), batch))


@pytest.mark.parametrize(("technique", "family_name", "head"), REPEATABLE)
def test_trainable_parameters_equal_the_closed_form(technique, family_name, head, tiny):
    model, _, _ = build(tiny, technique, family_name, head)
    plain, _ = base(tiny, family_name, head)
    assert trainable.counts(model)["trainable_parameters"] == closed_form(
        technique, plain, FAMILIES[family_name], head
    )
