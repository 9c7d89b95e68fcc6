"""A trained run whose store is in force."""

import pytest

from tests.support import trained


@pytest.fixture(scope="module")
def run(recorded):
    """(MLflow run, its folder with train.json, test.json and data/) of a small real training."""
    made, _, folder = recorded
    with trained.store(folder):
        yield made, folder
