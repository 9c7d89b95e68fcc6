"""One module decides what is called after the data."""

from common.tasks import naming
from common.tasks.table import TASKS

QA, TEXTS, WRITING = (TASKS[name] for name in ("extractive-qa", "classification", "generative-qa"))


def test_without_a_name_the_task_decides():
    assert naming.experiment(QA, "") == "squad-qa" and naming.experiment(TEXTS, "") == "imdb-sentiment"
    assert naming.registered(QA, {}) == "bert-squad-qa" and naming.registered(TEXTS, {}) == "imdb-sentiment"


def test_a_name_is_that_of_experiment_and_model():
    tags = {naming.TAG: "ag-news"}
    for task in (QA, TEXTS):
        assert naming.experiment(task, "ag-news") == naming.registered(task, tags) == "ag-news"


def test_two_tasks_on_the_same_questions_have_two_models():
    tags = {naming.TAG: "covid"}
    assert naming.registered(WRITING, tags) == "covid-generative" != naming.registered(QA, tags)
