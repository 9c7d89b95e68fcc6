"""import_model.py: models that were trained elsewhere become runs."""

import shutil

import mlflow
import pytest
import torch
import transformers
from transformers import AutoTokenizer

from common.api import load, register
from common.data import prepared
from common.inference import models
from common.paths import ROOT
from common.training import fingerprint
from tests.scripts.conftest import call_script, run_script
from tests.support import stores, trained
from tests.support.called import call
from tests.support.foreign_adapters import stock

LENGTHS = ("--max_length", 96, "--doc_stride", 16)


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(folder with data/ and test.json, folder of a stock adapter, folder of a plain model) with a store in force."""
    folder = tmp_path_factory.mktemp("import")
    with stores.in_force(folder):
        trained.prepare_data(folder)
        stock(folder / "adapter", tiny("bert"))
        model = transformers.AutoModelForQuestionAnswering.from_pretrained(tiny("distilbert"))
        torch.manual_seed(3)
        with torch.no_grad():
            model.qa_outputs.weight.normal_()
        model.save_pretrained(folder / "plain")
        AutoTokenizer.from_pretrained(tiny("distilbert")).save_pretrained(folder / "plain")
        yield folder


def import_(world, *flags, run=call_script):
    return run("import_model.py", "--data_dir", world / "data", *LENGTHS, *flags)


def newest(experiment):
    return mlflow.search_runs(experiment_names=[experiment], output_format="list")[0]


@pytest.mark.long
def test_an_adapter_becomes_a_run_that_answers_as_it_does(world, tiny):
    flags = ("--model_checkpoint", tiny("bert"), "--adapter", world / "adapter")
    done = import_(world, *flags, "--experiment_name", "adapters", "--skip_finished", run=run_script)
    run = newest("adapters")
    assert f"Imported: run {run.info.run_id}, model models:/" in done.stdout
    tags, metrics = run.data.tags, run.data.metrics
    assert tags["technique"] == "Imported" and tags["task"] == "extractive-qa" and tags["run_fingerprint"]
    assert tags["data_fingerprint"] == prepared.load(world / "data")[1].fingerprint
    assert tags["adapter"] == str(world / "adapter") and tags["checkpoint"] == tiny("bert")
    assert metrics["test_f1_low"] <= metrics["test_f1"] <= metrics["test_f1_high"]
    assert (
        "best_validation_f1" in metrics and 0 < metrics["trainable_parameters"] < metrics["total_parameters"]
    )
    rows = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/predictions/test.json")
    examples = prepared.load(world / "data")[0]["test"].to_list()
    asked = [{name: e[name] for name in ("question", "context")} for e in examples]
    stored = load(run.info.run_id)
    assert list(stored.predict(asked)["answer"]) == [row["prediction"] for row in rows]
    # What validation decided is the run's own; the spans are the adapter's.
    always = models.load(tiny("bert"), adapter=str(world / "adapter"))
    spans = always.predict(asked, max_answer_length=30)
    kept = stored.predict(asked, null_threshold=1e9)
    assert list(kept["answer"]) == list(spans["answer"])
    again = import_(world, *flags, "--experiment_name", "adapters", "--skip_finished")
    assert f"run {run.info.run_id} already holds this result" in again.stdout


def test_the_code_that_merges_is_a_part_of_the_run(world, tmp_path, monkeypatch):
    """An adapter that other code reads may be another model."""
    flags = ("--adapter", world / "adapter", "--experiment_name", "code", "--skip_finished")
    assert import_(world, *flags).returncode == 0
    copy = tmp_path / "common"
    shutil.copytree(fingerprint.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "sample"))
    monkeypatch.setattr(fingerprint, "PACKAGE", copy)
    assert "already holds this result" in import_(world, *flags).stdout
    with open(copy / "inference" / "foreign_adapters.py", "a") as file:
        file.write("# changed\n")
    assert "already holds" not in import_(world, *flags).stdout
    assert len(mlflow.search_runs(experiment_names=["code"])) == 2


@pytest.mark.long
def test_a_plain_model_is_compared_gated_and_registered(world, tiny):
    record = prepared.load(world / "data")[1]
    examples = prepared.load(world / "data")[0]["test"].to_list()
    trained.log_run(world, tiny, record, examples, experiment="both", validation_f1=-1.0)
    done = import_(
        world,
        "--model_checkpoint",
        world / "plain",
        "--technique",
        "From the hub",
        "--experiment_name",
        "both",
    )
    assert done.returncode == 0, done.stderr
    run = newest("both")
    assert run.data.tags["technique"] == run.info.run_name == "From the hub"
    compared = call(
        ROOT / "scripts" / "compare.py", "--experiment_name", "both", "--output_dir", world / "table"
    )
    assert compared.returncode == 0 and "From the hub" in compared.stdout, compared.stderr
    with trained.checked_here():
        outcome = register("both")
    assert (outcome.run_id, outcome.alias) == (run.info.run_id, "champion")
    registered = load(f"models:/{outcome.name}@champion")
    assert registered.answer("Who?", "Marie Curie shared the prize.") == load(run.info.run_id).answer(
        "Who?", "Marie Curie shared the prize."
    )


def test_training_goes_on_from_an_imported_model(world, tiny):
    from common.training import planning

    import_(world, "--adapter", world / "adapter", "--experiment_name", "onwards")
    checkpoint = planning.resolve_checkpoint(f"runs:/{newest('onwards').info.run_id}/model")
    from common.models.base import load_base

    model, _ = load_base(checkpoint, trained_head=True)
    from common.inference import foreign

    expected = foreign.open_(None, world / "adapter").model
    torch.testing.assert_close(model.qa_outputs.weight, expected.qa_outputs.weight)


def test_scripts_take_an_adapter(world, tiny, tmp_path):
    flags = ("--adapter", world / "adapter", "--file", world / "test.json")
    done = call_script("predict.py", *flags, "--output", tmp_path / "p.json")
    assert done.returncode == 0 and "8 questions" in done.stdout, done.stderr
    done = call_script("evaluate.py", *flags, "--no_log", "--output_dir", tmp_path / "e")
    assert done.returncode == 0 and str(world / "adapter") in done.stdout, done.stderr
    both = ("--model", tiny("bert"), world / "plain")
    done = call_script("evaluate.py", *both, *flags, "--no_log", "--output_dir", tmp_path / "e")
    assert done.returncode == 2 and "--adapter is put on one --model" in done.stderr
    done = call_script("predict.py", *flags, "--output", tmp_path / "p.json", "--backend", "ray")
    assert done.returncode == 2 and "--adapter is for --backend local" in done.stderr
    for script, more in (("predict.py", ("--output", tmp_path / "p.json")), ("evaluate.py", ())):
        done = call_script(script, "--file", world / "test.json", *more)
        assert done.returncode == 2 and "No model is named: name one" in done.stderr


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ((), "No model is named: name one"),
        (("--model_checkpoint", "nowhere/at-all"), "nowhere/at-all leads to no logged model"),
        (("--adapter", "nowhere"), "The adapter nowhere holds no adapter_config.json"),
        (("--model_checkpoint", "embedded"), "it has no head that answers questions"),
        (("--max_length", 4000, "--model_checkpoint", "PLAIN"), "--max_length 4000 is longer than"),
    ],
)
def test_what_cannot_be_imported_is_said_in_a_line(world, flags, reason):
    flags = [world / "plain" if flag == "PLAIN" else flag for flag in flags]
    done = import_(world, "--experiment_name", "none", *flags)
    assert done.returncode == 2 and reason in done.stderr, done.stderr
    assert mlflow.get_experiment_by_name("none") is None


def test_labels_must_be_those_of_the_data(world, tiny, tmp_path):
    from tests.support.texts import make_texts, write_csv

    write_csv(tmp_path / "train.csv", make_texts(12))
    write_csv(tmp_path / "test.csv", make_texts(8))
    done = call_script(
        "prepare_data.py", "--source", "text", "--train_file", tmp_path / "train.csv", "--test_file",
        tmp_path / "test.csv", "--output_dir", tmp_path / "texts",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name, id2label in (("others", {0: "cat", 1: "dog"}), ("plain", None)):
        more = {"id2label": id2label} if id2label else {}
        model = transformers.AutoModelForSequenceClassification.from_pretrained(tiny("bert"), **more)
        model.save_pretrained(tmp_path / name)
        AutoTokenizer.from_pretrained(tiny("bert")).save_pretrained(tmp_path / name)
    flags = ("--data_dir", tmp_path / "texts", "--max_length", 96, "--experiment_name", "texts")
    done = call_script("import_model.py", "--model_checkpoint", tmp_path / "others", *flags)
    assert done.returncode == 2 and "gives the labels cat, dog; " in done.stderr, done.stderr
    done = call_script("import_model.py", "--model_checkpoint", tmp_path / "plain", *flags)
    assert done.returncode == 0, done.stderr
    assert load(newest("texts").info.run_id).classify("Good.")["label"] in ("negative", "positive")
