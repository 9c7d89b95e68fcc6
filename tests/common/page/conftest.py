"""Two registered models, and the page that asks them."""

import pytest

from common.data import prepared
from common.page import app
from common.page.catalogue import Catalogue
from common.registry import register
from common.serving.extractive_qa import Answerer
from common.tasks.table import TASKS
from tests.support import stores, trained
from tests.support.questions import EXAMPLES

NAME = TASKS["extractive-qa"].registered
URIS = [f"models:/{NAME}/1", f"models:/{NAME}/2"]
GOOD = {"question": "Who shared the prize?", "context": EXAMPLES[4]["context"], "models": URIS}


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(run of the champion, {URI: its Answerer as training saved it})."""
    folder = tmp_path_factory.mktemp("page")
    with stores.in_force(folder):
        record = trained.prepare_data(folder)
        test = prepared.load(folder / "data")[0]["test"].to_list()
        runs, answerers = [], {}
        for i, (technique, f1) in enumerate((("lora", 50.0), ("ia3", 40.0))):
            made = {"technique": technique, "validation_f1": f1, "seed": i}
            runs.append(trained.log_run(folder, tiny, record, test, experiment=f"page-{i}", **made))
            with trained.checked_here():
                register.register_best(f"page-{i}")
            saved = folder / f"{technique}-{i}"
            answerers[URIS[i]] = Answerer(saved / "bundle", saved / "base")
        yield runs[0], answerers


@pytest.fixture(scope="module")
def client(world):
    return app.create_app(Catalogue()).test_client()


def ask(client, **fields):
    """The results of the script's request."""
    answer = client.post("/answer", json=GOOD | fields)
    assert answer.status_code == 200, answer.text
    return answer.get_json()["results"]
