"""The trainer's own part of a step: what a technique's hook adds to the loss, and which parameters decay."""

from types import SimpleNamespace

import torch

from common.models import base as models
from common.models import trainable
from common.models.families import FAMILIES
from common.training.trainer import TaskTrainer
from tests.support.techniques import technique


def test_a_step_has_the_hooks_loss_once_however_many_batches_it_has():
    """Also where the batches are of different sizes and some labels are left out."""
    labels = [torch.tensor([[3, 4], [1, -100]]), torch.tensor([[5, 6]])]
    trainer = SimpleNamespace(
        loss=lambda model, inputs, labels: torch.tensor(10.0),
        hook=SimpleNamespace(extra_loss=lambda: torch.tensor(7.0)),
        args=SimpleNamespace(world_size=1),
    )
    counted = sum(int(each.ne(-100).sum()) for each in labels)
    losses = [
        TaskTrainer.compute_loss(trainer, None, {"labels": each}, num_items_in_batch=counted)
        for each in labels
    ]
    torch.testing.assert_close(sum(losses), torch.tensor(2 * 10.0 / counted + 7.0))


def test_the_lengths_of_dora_do_not_decay(tiny):
    model, _ = models.load_base(models.resolve_checkpoint(tiny("bert")))
    model = models.apply(technique("lora, dora").method(FAMILIES["bert"]), model, FAMILIES["bert"])
    decaying = TaskTrainer.get_decay_parameter_names(TaskTrainer.__new__(TaskTrainer), model)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert any(trainable.is_length(name) for name in trained)
    assert not any(trainable.is_length(name) for name in decaying)
    assert all(name in decaying for name in trained if ".lora_A." in name or ".lora_B." in name)
