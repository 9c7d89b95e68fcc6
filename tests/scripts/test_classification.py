"""Classification from a file of texts to a registered model, through the scripts, on a tiny BERT."""

import json
import re

import mlflow
import numpy as np
import pytest
from datasets import load_from_disk

from common.data import labelled_texts
from common.registry import drift, register
from common.serving.observations import Observations
from common.serving.observed import Seen
from tests.scripts.conftest import run_script
from tests.support.texts import make_texts, write_csv


@pytest.mark.long
def test_a_tiny_bert_learns_is_logged_registered_and_answers_as_the_run_did(tiny, store, tmp_path):
    files = [write_csv(tmp_path / f"{i}.csv", make_texts(n, i)) for i, n in enumerate((160, 40))]
    data_dir = tmp_path / "texts"
    labelled_texts.prepare_files(*files, data_dir, validation_share=0.2)
    flags = "--task classification --max_length 64 --batch_size 8 --num_train_epochs 3 --logging_steps 1"
    flags += " --max_train_samples 100 --learning_rate 0.01"
    folder = ("--data_dir", data_dir, "--model_checkpoint", tiny("bert"))
    done = run_script("bert_fine_tuning_LoRA.py", *flags.split(), *folder, cwd=tmp_path)
    assert "LoRA on 0.csv (40 test examples): accuracy" in done.stdout

    (run,) = mlflow.search_runs(experiment_names=["imdb-sentiment"], output_format="list")
    metrics, tags = run.data.metrics, run.data.tags
    assert (run.info.status, tags["task"], tags["data_version"]) == (
        "FINISHED",
        "classification",
        "binary",
    )
    assert metrics["test_accuracy_low"] <= metrics["test_accuracy"] <= metrics["test_accuracy_high"]
    assert metrics["test_f1_low"] <= metrics["test_f1"] <= metrics["test_f1_high"]
    assert metrics["best_validation_accuracy"] > 80 and metrics["test_accuracy"] > 80
    client = mlflow.MlflowClient()
    assert len(client.get_metric_history(run.info.run_id, "validation_accuracy")) == 3
    losses = [m.value for m in client.get_metric_history(run.info.run_id, "train_loss")]
    # 100 texts, 8 to a step.
    assert len(losses) == 3 * 13 and np.mean(losses[-5:]) < 0.7 * np.mean(losses[:3])

    predictions = client.download_artifacts(run.info.run_id, "predictions", tmp_path)
    test = load_from_disk(str(data_dir))["test"].to_list()
    rows = json.loads(open(f"{predictions}/test.json").read())
    names = ("negative", "positive")
    assert [(r["id"], r["label"]) for r in rows] == [(e["id"], names[e["label"]]) for e in test]
    assert [r["accuracy"] for r in rows] == [float(r["prediction"] == r["label"]) for r in rows]
    assert 100 * np.mean([r["accuracy"] for r in rows]) == pytest.approx(metrics["test_accuracy"])
    counts = np.array(json.loads(open(f"{predictions}/confusion_matrix.json").read())["counts"])
    assert counts.sum() == 40 and 100 * np.trace(counts) / 40 == pytest.approx(metrics["test_accuracy"])
    arrays = np.load(f"{predictions}/preds_and_labels.npz")
    assert arrays["labels"].tolist() == [e["label"] for e in test]
    assert [names[i] for i in arrays["predictions"]] == [r["prediction"] for r in rows]
    assert open(f"{predictions}/confusion_matrix.png", "rb").read(4) == b"\x89PNG"

    done = register.register_best("imdb-sentiment")
    assert (done.name, done.alias) == ("imdb-sentiment", "champion")
    assert "40 test texts are answered as in training." in done.notes
    page = client.get_model_version("imdb-sentiment", "1").description
    assert "| | accuracy |" in re.sub(" +", " ", page) and f"{metrics['test_accuracy']:.1f} (" in page
    given = mlflow.pyfunc.load_model("models:/imdb-sentiment@champion").predict(
        load_from_disk(str(data_dir))["test"].to_pandas()[["text"]]
    )
    assert list(given["label"]) == [r["prediction"] for r in rows]
    # What a server would note of the same texts, and of others of one class alone.
    records = [{"text": e["text"]} for e in test]
    alike, other = Observations(tmp_path / "alike"), Observations(tmp_path / "other")
    alike.put(Seen("id", "1", records=records, answers=given.to_dict("records")))
    one_class = [{"label": "positive", "score": 0.999}] * 40
    other.put(
        Seen(
            "id",
            "1",
            records=[{"text": f"{r['text']} {i}"} for i, r in enumerate(records)],
            answers=one_class,
        )
    )
    for each, drifting in ((alike, set()), (other, {"label", "score"})):
        each.finish(60)
        found = drift.compare(each._folder, "models:/imdb-sentiment@champion")
        assert drifting <= set(found.drifting) and {"text length", "label", "score"} <= {
            m.name for m in found.measures
        }
        assert drifting or not found.drifting
    assert given["score"].to_list() == pytest.approx([r["probability"] for r in rows], abs=1e-4)
