"""Generative question answering through a technique's own command line, to a registered model that answers as its run did."""

from contextlib import nullcontext

import mlflow
import pandas as pd
import pytest
from datasets import load_from_disk

from common.registry import register
from tests.scripts.conftest import call_script, run_script
from tests.support import trained


@pytest.mark.long
@pytest.mark.parametrize("family_name", ["gpt2", "t5", "llama", "bart"])
def test_a_run_logs_a_model_that_answers_as_it_did(family_name, tiny, prepared, store, tmp_path):
    flags = {
        "task": "generative-qa",
        "model_checkpoint": tiny(family_name),
        "data_dir": prepared[0],
        "max_length": 96,
        "doc_stride": 16,
        "max_answer_length": 8,
        "batch_size": 8,
        "num_train_epochs": 2,
        "learning_rate": 1e-2,
        "output_dir": tmp_path / "out",
    }
    # One in processes of its own, as a user starts it; the others without the seconds of imports.
    alone = family_name == "gpt2"
    run = run_script if alone else call_script
    given = (part for name, value in flags.items() for part in (f"--{name}", value))
    assert run("bert_fine_tuning_LoRA.py", *given, cwd=tmp_path).returncode == 0
    experiment = mlflow.get_experiment_by_name("generative-qa")
    (run,) = mlflow.search_runs([experiment.experiment_id], output_format="list")
    assert run.info.status == "FINISHED" and run.data.tags["family"] == family_name
    expected = "test_f1 test_f1_low test_exact_match test_NoAns_f1 best_validation_f1 trainable_parameters adapter_mib"
    assert not set(expected.split()) - set(run.data.metrics) and "null_threshold" not in run.data.metrics
    files = {file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id)}
    assert {"config.yaml", "data_record.json", "predictions", "loss_curve.png"} <= files
    answers = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/predictions/test.json")
    assert len(answers) == 32 and {"question", "prediction", "score", "f1"} <= set(answers[0])

    # The version is registered once it has answered, one by one, as the run did in batches.
    with nullcontext() if alone else trained.checked_here():
        done = register.register_best("generative-qa")
    assert (done.name, done.alias) == ("generative-qa", "champion")
    assert any("32 test questions are answered as in training" in note for note in done.notes)
    model = mlflow.pyfunc.load_model("models:/generative-qa@champion")
    test = load_from_disk(str(prepared[0]))["test"].to_pandas()
    given = model.predict(test[["question", "context"]])
    assert list(given["answer"]) == [answer["prediction"] for answer in answers]
    for answer, context, start, end in zip(
        given["answer"], test["context"], given["start"], given["end"], strict=True
    ):
        assert start == -1 or context[start:end] == answer
    asked = pd.DataFrame([{"question": "Who?", "context": None}])
    with pytest.raises(mlflow.MlflowException, match="context must be a string"):
        model.predict(asked)
    with pytest.raises(mlflow.MlflowException, match="max_answer_length is 0"):
        model.predict(test[["question", "context"]], params={"max_answer_length": 0})
