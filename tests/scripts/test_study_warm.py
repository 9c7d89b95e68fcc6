"""Rows of a study that are forked from one process, against the same rows in processes of their own."""

import hashlib
import json
import sys
from pathlib import Path

import mlflow
import pytest
import yaml

from common.reports import study_report
from common.studies import row_starter
from common.tracking import runs
from tests.scripts.test_study import content  # noqa: F401
from tests.support.stores import in_force
from tests.support.study_command import SCRIPT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="rows are forked on Linux alone")

MEASURED = ("seconds", "per_second", "memory")


@pytest.mark.long
def test_rows_are_bit_for_bit_those_of_processes_of_their_own(content, tmp_path):  # noqa: F811
    """Prefix tuning, which registers its attention for all models, first and last among others."""
    study = {key: value for key, value in content.items() if key != "stages"}
    study["base"] = study["base"] | {"max_train_samples": 8, "gradient_norms": False, "num_train_epochs": 1}
    orders = {
        "cold": ["prefix-tuning", "lora", "standard", "prompt-encoder"],
        "warm": ["prefix-tuning", "lora", "standard", "prompt-encoder"],
        "turned": ["prompt-encoder", "standard", "lora", "prefix-tuning"],
    }
    found = {}
    for name, techniques in orders.items():
        with in_force(tmp_path / name), pytest.MonkeyPatch.context() as patch:
            if name == "cold":
                patch.setattr(row_starter, "_possible", lambda: False)
            file = tmp_path / f"{name}.yaml"
            file.write_text(yaml.safe_dump(study | {"name": name, "techniques": techniques}))
            patch.setattr(sys, "argv", ["study.py", str(file), "--output_dir", str(tmp_path)])
            patch.setattr(study_report, "write_report", lambda *_: [])
            SCRIPT.main()
            state = json.loads((tmp_path / name / "study.json").read_text())
            found[name] = {row["name"]: left(row["run_id"]) for row in state["rows"].values()}
            assert len(state["seconds"]) == len(techniques) and min(state["seconds"].values()) > 1
    assert len(found["cold"]) == 4
    assert found["warm"] == found["cold"] and found["turned"] == found["cold"]


def left(run_id):
    """What a run measured, answered, and its weights' checksums."""
    metrics = runs.recorded(run_id)["metrics"]
    metrics = {name: value for name, value in metrics.items() if not any(word in name for word in MEASURED)}
    (model,) = mlflow.MlflowClient().search_logged_models(
        [mlflow.get_run(run_id).info.experiment_id], filter_string=f"source_run_id = '{run_id}'"
    )
    folder = Path(mlflow.artifacts.download_artifacts(model.model_uri))
    weights = {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*.safetensors")
    }
    assert weights
    return metrics, runs.predictions(run_id), weights
