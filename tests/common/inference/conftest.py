"""A trained run whose store is in force."""

import pytest

from tests.support import stores


@pytest.fixture(scope="module")
def run(recorded):
    """(MLflow run, its folder with train.json, test.json and data/) of a small real training."""
    made, _, folder = recorded
    with stores.in_force(folder):
        yield made, folder
