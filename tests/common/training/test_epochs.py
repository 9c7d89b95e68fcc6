"""The weights of the last epochs' ends and their mean."""

import torch
from safetensors.torch import load_file

from common.training.epochs import LastEpochs


def model(value):
    made = torch.nn.Linear(2, 1)
    torch.nn.init.constant_(made.weight, value)
    torch.nn.init.constant_(made.bias, -value)
    return made


def test_the_mean_is_that_of_the_last_epochs(tmp_path):
    epochs = LastEpochs(tmp_path / "epochs", 2)
    epochs.restore(None)
    for step, value in ((9, 100.0), (10, 1.0), (20, 2.0)):
        epochs.keep(model(value), step)
    assert sorted(f.name for f in (tmp_path / "epochs").iterdir()) == [
        "epoch-10.safetensors",
        "epoch-20.safetensors",
    ]
    assert epochs.write_mean() == 2
    mean = load_file(epochs.mean)
    assert mean["weight"].tolist() == [[1.5, 1.5]] and mean["bias"].tolist() == [-1.5]
    assert mean["weight"].dtype == torch.float32


def test_a_checkpoint_brings_back_the_epochs_that_it_had(tmp_path):
    epochs, checkpoint = LastEpochs(tmp_path / "epochs", 3), tmp_path / "checkpoint"
    checkpoint.mkdir()
    epochs.restore(None)
    epochs.keep(model(1.0), 5)
    epochs.link_into(checkpoint)
    epochs.keep(model(9.0), 10)
    epochs.restore(checkpoint)
    assert [f.name for f in epochs.folder.iterdir()] == ["epoch-5.safetensors"]
    epochs.write_mean()
    assert load_file(epochs.mean)["weight"].tolist() == [[1.0, 1.0]]
    epochs.restore(None)
    assert not list(epochs.folder.iterdir())
