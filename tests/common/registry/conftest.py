"""Stores that things are moved into."""

import shutil

import pytest

from tests.support import stores


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """The file of a store that holds nothing: making one takes seconds."""
    folder = tmp_path_factory.mktemp("empty")
    with stores.in_force(folder):
        return folder / "mlflow.db"


@pytest.fixture
def target(empty, tmp_path):
    """URI of an empty store of the test's own."""
    shutil.copy(empty, tmp_path / "target.db")
    return f"sqlite:///{tmp_path / 'target.db'}"
