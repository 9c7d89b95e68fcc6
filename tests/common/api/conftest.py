"""A store and data for calls from Python."""

import pytest

from tests.support.stores import in_force
from tests.support.trained import prepare_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with prepared questions in `data`, and a store of its own in force."""
    folder = tmp_path_factory.mktemp("api")
    prepare_data(folder)
    with in_force(folder):
        yield folder


@pytest.fixture(scope="module")
def small(folder, tiny):
    """Settings of a training of seconds."""
    return {
        "model_checkpoint": tiny("bert"),
        "data_dir": folder / "data",
        "max_length": 96,
        "doc_stride": 16,
        "batch_size": 4,
        "num_train_epochs": 2,
        "precision": "fp32",
    }
