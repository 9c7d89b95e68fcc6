import mlflow
import pytest

from common.data import prepared
from common.registry import adapter_set
from tests.scripts.conftest import call_script, run_script
from tests.support import stores, trained


@pytest.mark.long
def test_it_says_what_it_did_and_how_to_serve_and_what_it_cannot_do(tmp_path, tiny):
    with stores.in_force(tmp_path):
        record = trained.prepare_data(tmp_path)
        examples = prepared.load(tmp_path / "data")[0]["test"].to_list()
        run_id = trained.log_run(tmp_path, tiny, record, examples, experiment="here")
        done = run_script("register_adapters.py", "--experiment_name", "here", cwd=tmp_path)
        assert f"LoRA: run {run_id}" in done.stdout and "Traceback" not in done.stderr
        assert f"mlflow models serve -m models:/{adapter_set.NAME}/1 --env-manager local" in done.stdout
        assert mlflow.MlflowClient().get_model_version(adapter_set.NAME, "1").tags["run_ids"] == run_id
        refused = call_script("register_adapters.py", "--experiment_name", "nowhere")
        assert refused.returncode == 2 and refused.stderr.startswith("error: The experiment 'nowhere'")
