"""From answers that were corrected on the page to a registered model, by the commands of docs/PAGE.md."""

import mlflow
import pandas as pd
import pytest

from common.data import prepared
from common.page import app
from common.page.catalogue import Catalogue, Entry
from common.page.corrections import Corrections
from tests.scripts.conftest import run_script, runs, train
from tests.support import trained
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


def test_corrections_are_trained_on_and_the_model_is_registered(tmp_path, tiny):
    with trained.store(tmp_path):
        trained.prepare_data(tmp_path)
        correct(tmp_path / "corrections.json", EXAMPLES)
        data, mixed = tmp_path / "corrections_data", tmp_path / "corrected_data"
        run_script(
            *("prepare_data.py", "--source", "files", "--train_file", tmp_path / "corrections.json"),
            *("--validation_share", 0.2, "--output_dir", data),
        )
        splits, record = prepared.load(data)
        assert record.version == "v2.0" and not record.repaired and not record.dropped
        assert sum(map(len, splits.values())) == len(EXAMPLES)
        mix = f"{tmp_path / 'data'},{data}=2"
        run_script("prepare_data.py", "--source", "mix", "--mix", mix, "--output_dir", mixed)
        origins = prepared.load(mixed)[0]["train"].to_pandas()["origin"].value_counts()
        assert origins["corrections_data"] == 2 * len(splits["train"])
        train("bert_fine_tuning_LoRA.py", tiny, mixed, "--experiment_name", "corrected-qa")
        (run,) = runs()
        assert "test_f1_corrections_data" in run.data.metrics
        run_script(
            *("register_best.py", "--experiment_name", "corrected-qa"),
            *("--also_on", f"{tmp_path / 'data'}:1.0"),
        )
        (version,) = mlflow.MlflowClient().search_model_versions("name = 'bert-squad-qa'")
        assert (
            version.tags["run_id"] == run.info.run_id and version.tags["data_name"] == "data+corrections_data"
        )
