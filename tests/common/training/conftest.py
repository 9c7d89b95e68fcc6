import pytest

from tests.support.stores import in_force
from tests.support.trained import prepare_data


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with prepared data and a store that is in force."""
    folder = tmp_path_factory.mktemp("place")
    prepare_data(folder)
    with in_force(folder):
        yield folder
