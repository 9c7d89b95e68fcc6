import pytest

from tests.support.trained import prepare_data, store


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with prepared data and a store that is in force."""
    folder = tmp_path_factory.mktemp("place")
    prepare_data(folder)
    with store(folder):
        yield folder
