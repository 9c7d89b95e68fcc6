"""From answers that were corrected on the page to a registered model, by the commands of docs/PAGE.md as they stand there."""

import shlex

import mlflow
import pandas as pd
import pytest

from common.data import prepared
from common.page import app
from common.page.catalogue import Catalogue, Entry
from common.page.corrections import Corrections
from common.paths import ROOT
from tests.scripts.conftest import SMALL, run_here, runs
from tests.support import stores, trained
from tests.support.pages import typed_lines
from tests.support.questions import EXAMPLES

pytestmark = pytest.mark.long


class Silent:
    """A stored model that finds nothing."""

    def predict(self, frame, params):
        return pd.DataFrame([{"answer": "", "score": 0.5, "start": -1, "end": -1}])


class Listed(Catalogue):
    def entries(self):
        return [Entry("models:/m/1", "Version 1", (), {})]


def correct(file, rows):
    """Ask each question on the page, and correct the answer."""
    client = app.create_app(Listed(load=lambda uri: Silent()), corrections=Corrections(file)).test_client()
    for row in rows:
        asked = {name: row[name] for name in ("question", "context")}
        (result,) = client.post("/answer", json=asked | {"models": ["models:/m/1"]}).get_json()["results"]
        right = {"unanswerable": True}
        for text, start in zip(*row["answers"].values(), strict=True):
            right = {"answer": text, "start": start, "end": start + len(text)}
        assert client.post("/correction", json=asked | right | {"seal": result["seal"]}).status_code == 200


def of_the_page(folder):
    """[script, its arguments] of each command of docs/PAGE.md that follows the page; files and folders lie in this folder."""
    lines = [line for line in typed_lines(ROOT / "docs" / "PAGE.md") if "/demo.py" not in line]
    for word in ("corrections.json", "squad_data", "corrections_data", "corrected_data"):
        lines = [line.replace(word, str(folder / word)) for line in lines]
    return [[words[1].removeprefix("scripts/"), *words[2:]] for words in map(shlex.split, lines)]


def test_corrections_are_trained_on_and_the_model_is_registered(tmp_path, tiny):
    prepare, mix, train, register = of_the_page(tmp_path)
    with stores.in_force(tmp_path):
        trained.prepare_data(tmp_path)
        (tmp_path / "data").rename(tmp_path / "squad_data")
        correct(tmp_path / "corrections.json", EXAMPLES)
        run_here(*prepare)
        splits, record = prepared.load(tmp_path / "corrections_data")
        assert record.version == "v2.0" and not record.repaired and not record.dropped
        assert sum(map(len, splits.values())) == len(EXAMPLES) and all(map(len, splits.values()))
        run_here(*mix)
        origins = prepared.load(tmp_path / "corrected_data")[0]["train"].to_pandas()["origin"].value_counts()
        assert origins["corrections_data"] == 2 * len(splits["train"])
        run_here(*train, "--model_checkpoint", tiny("bert"), *SMALL)
        (run,) = runs()
        assert "test_f1_corrections_data" in run.data.metrics
        run_here(*register)
        (version,) = mlflow.MlflowClient().search_model_versions("name = 'bert-squad-qa'")
        assert version.tags["run_id"] == run.info.run_id
        assert version.tags["data_name"] == "squad_data+corrections_data"
