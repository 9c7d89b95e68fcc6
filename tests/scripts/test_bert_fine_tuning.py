"""The technique scripts through their own command line, on tiny models: what they log and refuse."""

import json
import re
import shutil

import mlflow
import pytest

from tests.scripts.conftest import SMALL, call_script, run_script, runs, train, train_here
from tests.support.techniques import SCRIPTS

QUICK = "bert_fine_tuning_LoRA.py"
"""The script whose whole runs are tested in the quick tier too; the techniques are tested by themselves there."""


@pytest.mark.parametrize("script", [s.name for s in SCRIPTS])
def test_help_is_quick_and_names_every_door(script):
    done = run_script(script, "--help", env={"PYTHONPROFILEIMPORTTIME": "1"})
    text, imported = done.stdout, re.findall(r"\| +(\S+)$", done.stderr, re.M)
    assert "argparse" in imported and not {"torch", "transformers", "mlflow", "datasets"} & set(imported)
    doors = "data_dir model_checkpoint learning_rate batch_size num_train_epochs max_length doc_stride max_train_samples"
    doors += " max_test_samples seed experiment_name run_name output_dir precision resume config"
    assert not [door for door in doors.split() if f"--{door}" not in text]


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [pytest.param(s.name, marks=[pytest.mark.long] if s.name != QUICK else []) for s in SCRIPTS],
)
def test_a_run_holds_what_the_readme_promises(script, tiny, prepared, store, tmp_path):
    (tmp_path / "method.yaml").write_text("peft_type: MISS\nr: 4\n")
    further = ("--peft_config", "method.yaml") if script == "bert_fine_tuning_peft.py" else ()
    # One as a user starts it, the others without the seconds of imports.
    with_flags = train if script == QUICK else train_here
    with_flags(script, tiny, prepared[0], "--output_dir", tmp_path / "out", *further, cwd=tmp_path)
    (run,) = runs()
    assert (
        run.info.status == "FINISHED"
        and run.data.tags["family"] == "bert"
        and run.data.tags["data_fingerprint"]
    )
    expected = "test_f1 test_f1_low test_f1_high test_exact_match test_HasAns_f1 test_NoAns_f1 null_threshold training_seconds "
    expected += "train_samples_per_second peak_memory_mib adapter_mib trainable_parameters total_parameters validation_f1 "
    expected += "best_validation_f1 train_loss learning_rate"
    assert not set(expected.split()) - set(run.data.metrics)
    assert run.data.metrics["test_f1_low"] <= run.data.metrics["test_f1"] <= run.data.metrics["test_f1_high"]
    assert 0 < len(run.data.params) < 60 and run.data.params["batch_size"] == "4"
    assert f"F1 {run.data.metrics['test_f1']:.1f} [" in run.data.tags["mlflow.note.content"]
    client = mlflow.MlflowClient()
    files = {f.path for f in client.list_artifacts(run.info.run_id)}
    assert {"config.yaml", "data_record.json", "predictions", "loss_curve.png", "environment.txt"} <= files
    assert len(client.get_metric_history(run.info.run_id, "validation_f1")) == 2
    answers = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/predictions/test.json")
    assert len(answers) == run.data.metrics["test_examples"] == 32
    assert abs(sum(a["f1"] for a in answers) / 32 * 100 - run.data.metrics["test_f1"]) < 1e-6
    assert not (tmp_path / "out").exists()

    # The logged model answers by itself as the run did.
    model = mlflow.search_logged_models(experiment_ids=[run.info.experiment_id], output_format="list")[0]
    from datasets import load_from_disk

    test = load_from_disk(str(prepared[0]))["test"].to_pandas()
    loaded = mlflow.pyfunc.load_model(f"models:/{model.model_id}")
    given = loaded.predict(test[["question", "context"]])
    assert list(given["answer"]) == [a["prediction"] for a in answers]
    assert list(given["start"]) == [a["start"] for a in answers]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--batch_size", 0), "--batch_size"),
        (("--model_checkpoint", "/nowhere/at/all"), "no such folder"),
        (("--precision", "fp16"), "needs a GPU"),
        (("--torch_compile", "fast"), "choose one of"),
        (("--max_length", 500, "--doc_stride", 10), "positions of this model"),
        (("--unknown", 1), "unknown argument --unknown"),
    ],
)
def test_a_users_mistake_is_one_clear_line(flags, message, tiny, prepared, store):
    given = ("--model_checkpoint", tiny("bert"), "--data_dir", prepared[0], *SMALL, *flags)
    done = call_script("bert_fine_tuning_LoRA.py", *given)
    assert done.returncode == 2 and message in done.stderr
    assert not runs()


def test_a_checkpoint_without_its_tokenizer_is_one_clear_line(tiny, prepared, store, tmp_path):
    folder = shutil.copytree(
        tiny("bert"), tmp_path / "weights alone", ignore=shutil.ignore_patterns("token*")
    )
    flags = ("--model_checkpoint", folder, "--output_dir", tmp_path / "out")
    done = call_script("bert_fine_tuning_LoRA.py", "--data_dir", prepared[0], *SMALL, *flags)
    assert done.returncode == 2 and f"{folder}: there is no tokenizer beside the weights" in done.stderr
    assert not runs() and not (tmp_path / "out").exists()


def test_a_strangers_folder_is_not_touched(tiny, prepared, store, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    done = train_here("bert_fine_tuning_LoRA.py", tiny, prepared[0], "--output_dir", tmp_path, check=False)
    assert done.returncode == 2 and "empty folder" in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.long
def test_packed_and_compiled_training_has_the_same_curve(tiny, prepared, store, tmp_path):
    """Without dropout, whose random numbers each way draws in an order of its own."""
    checkpoint = tmp_path / "steady"
    shutil.copytree(tiny("bert"), checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    config |= dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)
    (checkpoint / "config.json").write_text(json.dumps(config))
    ways = {
        "plain": (),
        "packed": ("--pack_batches",),
        "compiled": ("--torch_compile", "inductor"),
        "both": ("--pack_batches", "--torch_compile", "inductor"),
    }
    for name, flags in ways.items():
        flags += ("--model_checkpoint", checkpoint, "--num_train_epochs", 1, "--run_name", name)
        # Each length of a batch is compiled.
        flags += ("--max_train_samples", 16, "--max_validation_samples", 4, "--max_test_samples", 4)
        with_flags = train if name in ("compiled", "both") else train_here
        with_flags("bert_fine_tuning_LoRA.py", tiny, prepared[1], *flags)
    client, curves = mlflow.MlflowClient(), {}
    for run in runs():
        history = client.get_metric_history(run.info.run_id, "train_loss")
        curves[run.info.run_name] = [point.value for point in sorted(history, key=lambda point: point.step)]
    assert curves.keys() == ways.keys() and len(curves["plain"]) > 3
    for name in ways:
        assert curves[name] == pytest.approx(curves["plain"], rel=1e-3), name
