"""Names that people give their data."""

import pytest

from common.data import prepared
from common.data.sources import prepare
from common.data_name import check_name, folder
from common.errors import UserError
from common.tasks.naming import experiment
from common.tasks.table import TASKS


@pytest.mark.parametrize("name", ["ag-news", "a", "News_2024.v1", "0"])
def test_names_that_are_taken(name):
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "-x", "a/b", "a:b", "a b", "..", "é", "x" * 61, "a\n"])
def test_names_that_no_store_or_folder_takes_are_refused(name):
    with pytest.raises(UserError, match="--name .* use at most 60 letters"):
        check_name(name)


def test_the_folder_is_called_after_the_data():
    assert folder("ag-news", "imdb_data") == "ag-news_data" and folder("", "imdb_data") == "imdb_data"


@pytest.mark.parametrize("source", ["sample", "sample-texts"])
def test_questions_and_texts_keep_their_content_under_any_name(source, tmp_path):
    plain, _ = prepare(source, {}, tmp_path / "plain")
    called, _ = prepare(source, {}, tmp_path / "called", name="mine")
    _, loaded = prepared.load(tmp_path / "called")
    assert loaded == called and (called.called, called.title) == ("mine", "mine")
    assert called.fingerprint == plain.fingerprint and called.name == plain.name == plain.title
    assert experiment(TASKS["classification"], called.called) == "mine"
    # It can be prepared again.
    again, _ = prepare(source, {}, tmp_path / "called")
    assert again.called == "" and sorted(tmp_path.iterdir()) == sorted(
        tmp_path / name for name in (".called.lock", ".plain.lock", "called", "plain")
    )
    with pytest.raises(UserError, match="--name"):
        prepare(source, {}, tmp_path / "other", name="a/b")
