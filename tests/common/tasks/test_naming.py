"""One module decides what is called after the data."""

import pytest

from common.errors import UserError
from common.tasks import naming
from common.tasks.table import TASKS

QA, TEXTS, WRITING = (TASKS[name] for name in ("extractive-qa", "classification", "generative-qa"))


def test_without_a_name_the_task_decides():
    assert naming.experiment(QA, "") == "squad-qa" and naming.experiment(TEXTS, "") == "imdb-sentiment"
    assert naming.registered(QA, {}) == "bert-squad-qa" and naming.registered(TEXTS, {}) == "imdb-sentiment"
    assert naming.folder("", "imdb_data") == "imdb_data"


def test_a_name_is_that_of_experiment_model_and_folder():
    tags = {naming.TAG: "ag-news"}
    for task in (QA, TEXTS):
        assert naming.experiment(task, "ag-news") == naming.registered(task, tags) == "ag-news"
    assert naming.folder("ag-news", "imdb_data") == "ag-news_data"


def test_two_tasks_on_the_same_questions_have_two_models():
    tags = {naming.TAG: "covid"}
    assert naming.registered(WRITING, tags) == "covid-generative" != naming.registered(QA, tags)


@pytest.mark.parametrize("name", ["ag-news", "a", "News_2024.v1", "0"])
def test_names_that_are_taken(name):
    assert naming.check_name(name) == name


@pytest.mark.parametrize("name", ["", "-x", "a/b", "a:b", "a b", "..", "é", "x" * 61, "a\n"])
def test_names_that_no_store_or_folder_takes_are_refused(name):
    with pytest.raises(UserError, match="--name .* use at most 60 letters"):
        naming.check_name(name)
