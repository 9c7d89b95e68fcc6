"""The technique scripts through their own command line, on tiny models: what they log, repeat, survive and refuse."""

import os
import signal
import subprocess
import sys
import time

import mlflow
import pytest
from safetensors.torch import load_file

from common.paths import ROOT
from tests.scripts.conftest import run_script
from tests.techniques import SCRIPTS

SMALL = (
    "--max_length",
    96,
    "--doc_stride",
    16,
    "--batch_size",
    4,
    "--num_train_epochs",
    2,
    "--logging_steps",
    1,
)


def train(script, tiny, data, *flags, **kwargs):
    flags = ("--model_checkpoint", tiny("bert"), "--data_dir", data, *SMALL, *flags)
    return run_script(script, *flags, **kwargs)


def runs():
    return mlflow.search_runs(
        search_all_experiments=True, filter_string="tags.technique != ''", output_format="list"
    )


def curve(run_id):
    return [(m.step, m.value) for m in mlflow.MlflowClient().get_metric_history(run_id, "train_loss")]


def weights(run):
    """The trained tensors that a run's logged model holds."""
    model = mlflow.search_logged_models(
        experiment_ids=[run.info.experiment_id],
        filter_string=f"source_run_id = '{run.info.run_id}'",
        output_format="list",
    )[0]
    folder = mlflow.artifacts.download_artifacts(model.artifact_location)
    files = [
        f"{top}/{name}"
        for top, _, names in os.walk(folder)
        for name in names
        if name.endswith(".safetensors")
    ]
    return {k: v for file in files for k, v in load_file(file).items()}


def same(a, b):
    return a.keys() == b.keys() and all(a[k].equal(b[k]) for k in a)


@pytest.mark.parametrize("script", [s.name for s in SCRIPTS])
def test_help_is_quick_and_names_every_door(script):
    started = time.monotonic()
    text = run_script(script, "--help").stdout
    assert time.monotonic() - started < 10
    doors = "data_dir model_checkpoint learning_rate batch_size num_train_epochs max_length doc_stride max_train_samples"
    doors += " max_test_samples seed experiment_name run_name output_dir precision resume config"
    assert not [door for door in doors.split() if f"--{door}" not in text]


@pytest.mark.slow
@pytest.mark.parametrize("script", [s.name for s in SCRIPTS])
def test_a_run_holds_what_the_readme_promises(script, tiny, prepared, store, tmp_path):
    train(script, tiny, prepared[0], "--output_dir", tmp_path / "out", cwd=tmp_path)
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


@pytest.mark.slow
def test_the_same_seed_repeats_bit_for_bit_and_another_does_not(tiny, prepared, store):
    for seed in (1, 1, 2):
        train("bert_fine_tuning_LoRA.py", tiny, prepared[1], "--seed", seed, "--dropout", 0.1)
    third, second, first = sorted(runs(), key=lambda run: -run.info.start_time)
    assert curve(first.info.run_id) == curve(second.info.run_id) != curve(third.info.run_id)
    assert same(weights(first), weights(second)) and not same(weights(first), weights(third))
    assert first.data.metrics["test_f1"] == second.data.metrics["test_f1"]


@pytest.mark.slow
def test_bf16_products_train_to_nearly_the_same(tiny, prepared, store):
    few = ("--num_train_epochs", 1, "--max_train_samples", 12)
    train("bert_fine_tuning_LoRA.py", tiny, prepared[1], *few)
    train("bert_fine_tuning_LoRA.py", tiny, prepared[1], *few, "--precision", "bf16")
    other, plain = sorted(runs(), key=lambda run: -run.info.start_time)
    (steps, losses), (plain_steps, plain_losses) = (
        zip(*curve(run.info.run_id), strict=True) for run in (other, plain)
    )
    assert steps == plain_steps and losses == pytest.approx(plain_losses, rel=0.03)
    assert weights(other).keys() == weights(plain).keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [
        "bert_fine_tuning_LoRA.py",
        pytest.param("bert_fine_tuning.py", marks=pytest.mark.long),
        pytest.param("bert_fine_tuning_prompt_encoder.py", marks=pytest.mark.long),
    ],
)
def test_an_interrupted_run_goes_on_to_the_same_weights(script, tiny, prepared, store, tmp_path):
    flags = ("--save_steps", 4, "--num_train_epochs", 4)
    train(script, tiny, prepared[1], *flags)
    (whole,) = runs()
    output = tmp_path / "out"
    command = [
        sys.executable,
        str(ROOT / "scripts" / script),
        "--model_checkpoint",
        tiny("bert"),
        "--data_dir",
        str(prepared[1]),
    ]
    command += [*map(str, SMALL), *map(str, flags), "--output_dir", str(output)]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 120
    while not list(output.glob("checkpoint-*/trainer_state.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.fail("the run ended before it could be interrupted: make it longer")
    assert process.returncode == 143 and "--resume" in said and "Traceback" not in said
    cut = next(run for run in runs() if run.info.run_id != whole.info.run_id)
    assert cut.info.status == "KILLED" and curve(cut.info.run_id)
    # It was kept at the step that was under way.
    last = max(int(folder.name.split("-")[1]) for folder in output.glob("checkpoint-*"))
    assert last == max(step for step, _ in curve(cut.info.run_id))

    train(script, tiny, prepared[1], *flags, "--output_dir", output, "--resume")
    gone_on = mlflow.get_run(cut.info.run_id)
    assert gone_on.info.status == "FINISHED" and len(runs()) == 2
    assert same(weights(gone_on), weights(whole))
    for name in ("test_f1", "best_validation_f1"):
        assert gone_on.data.metrics[name] == whole.data.metrics[name]
    assert dict(curve(cut.info.run_id)) == dict(curve(whole.info.run_id))


@pytest.mark.slow
def test_two_processes_share_the_work_and_one_run(tiny, prepared, store, tmp_path):
    """Halves of every batch: the same mean gradient as one process's, up to the order of additions."""
    script = str(ROOT / "scripts/bert_fine_tuning_LoRA.py")
    small = [str(x) for x in SMALL]
    small[small.index("--batch_size") + 1] = "2"
    flags = ["--model_checkpoint", tiny("bert"), "--data_dir", str(prepared[1]), *small]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    done = subprocess.run(
        [*launcher, "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", script, *flags],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, (
        "\n".join(line for line in done.stderr.splitlines() if "[rank" in line) or done.stderr
    )
    (run,) = runs()
    assert run.info.status == "FINISHED" and run.data.metrics["test_examples"] == 28
    answers = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/predictions/test.json")
    assert len({a["id"] for a in answers}) == 28
    train("bert_fine_tuning_LoRA.py", tiny, prepared[1])
    alone = next(r for r in runs() if r.info.run_id != run.info.run_id)
    shared, single = dict(curve(run.info.run_id)), dict(curve(alone.info.run_id))
    assert shared.keys() == single.keys()
    assert shared == pytest.approx(single, rel=1e-4)


@pytest.mark.slow
def test_skip_finished_trains_nothing_twice(tiny, prepared, store):
    for _ in range(2):
        done = train("bert_fine_tuning_IA3.py", tiny, prepared[1], "--skip_finished")
    assert "nothing to do" in done.stdout and len(runs()) == 1


@pytest.mark.slow
def test_a_diverging_run_stops_with_its_step_and_is_marked_failed(tiny, prepared, store):
    flags = ("--learning_rate", 1e30, "--max_grad_norm", 1e30, "--warmup_ratio", 0)
    done = train("bert_fine_tuning.py", tiny, prepared[1], *flags, check=False)
    assert done.returncode == 2 and "diverged" in done.stderr and "--learning_rate" in done.stderr
    assert [run.info.status for run in runs()] == ["FAILED"]


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
    done = train("bert_fine_tuning_LoRA.py", tiny, prepared[0], *flags, check=False)
    assert done.returncode == 2 and message in done.stderr
    assert not runs()


def test_a_strangers_folder_is_not_touched(tiny, prepared, store, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    done = train("bert_fine_tuning_LoRA.py", tiny, prepared[0], "--output_dir", tmp_path, check=False)
    assert done.returncode == 2 and "empty folder" in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.slow
def test_mlflow_run_passes_parameters_and_its_run_is_the_one_that_is_filled(tiny, prepared, store):
    """MLflow logs parameters as typed beforehand; the script must neither clash with them nor make a second run."""
    parameters = {"data_dir": prepared[1], "model_checkpoint": tiny("bert"), "learning_rate": "1e-3"}
    parameters |= {
        flag.removeprefix("--"): value for flag, value in zip(SMALL[::2], SMALL[1::2], strict=True)
    }
    command = [
        "mlflow",
        "run",
        str(ROOT),
        "-e",
        "lora",
        "--env-manager",
        "local",
        "--experiment-name",
        "by-mlflow",
    ]
    command += [part for name, value in parameters.items() for part in ("-P", f"{name}={value}")]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    (run,) = runs()
    assert run.info.status == "FINISHED" and "test_f1" in run.data.metrics
    assert run.data.params["learning_rate"] == "1e-3" and run.data.params["r"] == "16"
