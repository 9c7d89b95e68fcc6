"""Runs are merged into a run: tested as any other, found by comparison, registered, and refused where they do not fit."""

import mlflow
import pandas as pd
import pytest

from common.data import labelled_texts, prepared
from common.errors import UserError
from common.inference import models as asking
from common.models.merging import Recipe
from common.registry.register import register_best
from common.tracking import runs
from common.tracking.compared import compare_experiment
from common.training import fit, merging
from common.training.settings import RunArgs
from tests.support import stores, texts, trained
from tests.support.questions import EXAMPLES
from tests.support.techniques import TECHNIQUES

SCORES = ("test_f1", "test_exact_match", "best_validation_f1", "null_threshold", "test_aurc", "test_ece")


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(folder with data, a store that is in force, ids of two trained runs of the experiment "here")."""
    folder = tmp_path_factory.mktemp("merged")
    with stores.in_force(folder):
        trained.prepare_data(folder)
        ids = [
            fit.fit(
                TECHNIQUES["lora"](num_train_epochs=3.0, learning_rate=1e-2),
                RunArgs(
                    model_checkpoint=tiny("bert"),
                    data_dir=str(folder / "data"),
                    output_dir=str(folder / "out"),
                    experiment_name="here",
                    seed=seed,
                    batch_size=4,
                    **trained.LENGTHS,
                ),
            )
            for seed in range(2)
        ]
        yield folder, ids


def merged(world, ids=None, recipe=None, **options):
    folder, own = world
    id_ = merging.merge(ids or own, recipe or Recipe(), output_dir=str(folder / "out"), **options)
    return mlflow.get_run(id_)


def test_one_run_merged_scores_as_it_did(world):
    before = mlflow.get_run(world[1][0])
    after = merged(world, world[1][:1], experiment_name="alone")
    for name in SCORES:
        assert after.data.metrics[name] == pytest.approx(before.data.metrics[name], abs=1e-4), name
    for name in (
        "test_f1",
        "test_exact_match",
        "trainable_parameters",
        "total_parameters",
        "training_seconds",
    ):
        assert after.data.metrics[name] == before.data.metrics[name]
    assert (
        runs.predictions(after.info.run_id)[0]["prediction"] == runs.predictions(world[1][0])[0]["prediction"]
    )


@pytest.mark.long
def test_a_merged_run_is_a_run_like_any_other(world):
    run = merged(world, run_name="both")
    assert run.info.status == "FINISHED" and run.data.tags["technique"] == "LoRA, 2 merged (linear)"
    assert run.data.tags["merged_from"] == ",".join(world[1]) and run.info.run_name == "both"
    first = mlflow.get_run(world[1][0])
    assert run.info.experiment_id == first.info.experiment_id
    for tag in ("base_fingerprint", "data_fingerprint", "checkpoint", "family", "task"):
        assert run.data.tags[tag] == first.data.tags[tag]
    assert run.data.params["weights"] == "0.5, 0.5" and run.data.params["max_length"] == "96"
    assert "learning_rate" not in run.data.params and "merged_from" in run.data.params
    assert "LoRA, 2 merged (linear)" in compare_experiment("here").as_text()

    answers = asking.load(f"runs:/{run.info.run_id}/model").predict(
        pd.DataFrame([{name: e[name] for name in ("question", "context")} for e in EXAMPLES])
    )
    assert len(answers) == len(EXAMPLES)
    assert merged(world, skip_finished=True).info.run_id == run.info.run_id
    other = merged(world, recipe=Recipe("cat"), skip_finished=True)
    assert other.info.run_id != run.info.run_id
    assert other.data.metrics["trainable_parameters"] > run.data.metrics["trainable_parameters"]
    assert merged(world, recipe=Recipe(weights=(0.4, 0.6)), skip_finished=True).info.run_id not in (
        run.info.run_id,
        other.info.run_id,
    )


def test_it_is_registered_and_answers(world):
    run = merged(world, experiment_name="registered")
    with trained.checked_here():
        done = register_best("registered", data_dir=world[0] / "data")
    assert done.run_id == run.info.run_id and done.alias == "champion"
    uri = f"models:/{done.name}/{done.version}"
    answer = asking.load(uri).answer(EXAMPLES[0]["question"], EXAMPLES[0]["context"])
    rows = {row["question"]: row for row in runs.predictions(run.info.run_id)}
    assert answer["answer"] == rows[EXAMPLES[0]["question"]]["prediction"]


def test_a_merged_run_can_be_merged_again(world):
    once = merged(world, experiment_name="again").info.run_id
    again = merged(world, [once], experiment_name="again")
    assert again.data.metrics["test_f1"] == mlflow.get_run(once).data.metrics["test_f1"]
    assert again.data.tags["technique"] == "LoRA, 2 merged (linear), 1 merged (linear)"


@pytest.fixture(scope="module")
def strangers(world, tiny):
    """Name → id of a run that differs from the others in that."""
    folder = world[0]
    splits, record = prepared.load(folder / "data")
    examples = splits["test"].to_list()
    found = {
        "technique": trained.log_run(folder, tiny, record, examples, experiment="other", technique="ia3")
    }
    found["standard"] = trained.log_run(
        folder, tiny, record, examples, experiment="other", technique="standard"
    )
    found["base"] = trained.log_run(folder, tiny, record, examples, experiment="other", seed=7)
    mlflow.MlflowClient().set_tag(found["base"], "base_fingerprint", "ab" * 32)
    found["labels"] = trained.log_run(folder, tiny, record, examples, experiment="other", seed=8)
    mlflow.MlflowClient().set_tag(found["labels"], "labels", "negative, positive")
    found["unfinished"] = trained.log_run(folder, tiny, record, examples, experiment="other", seed=9)
    mlflow.MlflowClient().update_run(found["unfinished"], status="RUNNING")
    return found


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("technique", r"they differ in the technique \(IA3 and LoRA\)"),
        ("standard", r"they differ in the technique \(Standard and LoRA\)"),
        ("base", r"they differ in the base \(abab"),
        ("labels", r"they differ in the labels \(negative, positive and not recorded\)"),
        ("unfinished", "is RUNNING"),
    ],
)
def test_a_run_that_does_not_fit_is_named_with_what_differs(name, reason, world, strangers):
    before = len(mlflow.search_runs(search_all_experiments=True, output_format="list"))
    with pytest.raises(UserError, match=f"Run {strangers[name]}.*{reason}"):
        merged(world, [world[1][0], strangers[name]])
    assert len(mlflow.search_runs(search_all_experiments=True, output_format="list")) == before


def test_runs_that_are_not_there_or_named_twice_are_refused(world):
    with pytest.raises(UserError, match="is not in the store"):
        merged(world, [world[1][0], "0" * 32])
    with pytest.raises(UserError, match="named twice"):
        merged(world, [world[1][0], world[1][0]])


def test_other_data_must_be_named(world, capsys):
    first = world[1][0]
    scored = mlflow.get_run(first).data.metrics["best_validation_f1"]
    mlflow.MlflowClient().log_metric(first, "best_validation_f1", 100.0, step=10)
    mlflow.MlflowClient().set_tag(first, "data_fingerprint", "cd" * 32)
    with pytest.raises(UserError, match=f"has changed since run {first}"):
        merged(world, [first])
    with pytest.raises(UserError, match="nowhere"):
        merged(world, [first], data_dir=str(world[0] / "nowhere"))
    assert not (world[0] / "nowhere").exists()
    assert merged(world, [first], data_dir=str(world[0] / "data"), experiment_name="named")
    # Scores on other data say nothing about what merging has lost; on the same data they do.
    assert "warning: on validation" not in capsys.readouterr().err
    record = prepared.load(world[0] / "data")[1]
    mlflow.MlflowClient().set_tag(first, "data_fingerprint", record.fingerprint)
    assert merged(world, [first], experiment_name="warned")
    assert "the runs have 100.0 to 100.0" in capsys.readouterr().err
    mlflow.MlflowClient().log_metric(first, "best_validation_f1", scored, step=11)


@pytest.mark.long
def test_classifiers_are_merged(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    with stores.in_force(folder):
        files = [texts.write_csv(folder / f"{i}.csv", texts.make_texts(n, i)) for i, n in enumerate((60, 20))]
        labelled_texts.prepare_files(*files, folder / "data", validation_share=0.2)
        ids = [
            fit.fit(
                TECHNIQUES["bitfit"](num_train_epochs=1.0),
                RunArgs(
                    task="classification",
                    model_checkpoint=tiny("bert"),
                    data_dir=str(folder / "data"),
                    output_dir=str(folder / "out"),
                    experiment_name="texts",
                    max_length=64,
                    seed=seed,
                ),
            )
            for seed in range(2)
        ]
        run = mlflow.get_run(merging.merge(ids, Recipe(), output_dir=str(folder / "out")))
        assert run.data.tags["technique"] == "BitFit, 2 merged (linear)"
        before = mlflow.get_run(ids[0])
        assert run.data.metrics.keys() >= {"test_accuracy", "best_validation_accuracy", "temperature"}
        assert run.data.metrics["trainable_parameters"] == before.data.metrics["trainable_parameters"]
        alone = mlflow.get_run(merging.merge(ids[:1], Recipe(), output_dir=str(folder / "out")))
        assert alone.data.metrics["test_accuracy"] == before.data.metrics["test_accuracy"]
