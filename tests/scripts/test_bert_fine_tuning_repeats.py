"""The technique scripts through their own command line, on tiny models: results that repeat, whatever happens meanwhile."""

import os
import signal
import subprocess
import sys
import time

import mlflow
import pytest
import torch
from safetensors.torch import load_file

from common.models import products
from common.paths import ROOT
from tests.scripts.conftest import SMALL, runs, train, train_here


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


@pytest.mark.long
def test_the_same_seed_repeats_bit_for_bit_and_another_does_not(tiny, prepared, store):
    for seed, with_flags in ((1, train), (1, train), (2, train_here)):
        with_flags("bert_fine_tuning_LoRA.py", tiny, prepared[1], "--seed", seed, "--dropout", 0.1)
    third, second, first = sorted(runs(), key=lambda run: -run.info.start_time)
    assert curve(first.info.run_id) == curve(second.info.run_id) != curve(third.info.run_id)
    assert same(weights(first), weights(second)) and not same(weights(first), weights(third))
    assert first.data.metrics["test_f1"] == second.data.metrics["test_f1"]


@pytest.mark.long
def test_bf16_products_train_to_nearly_the_same(tiny, prepared, store, monkeypatch):
    few = ("--num_train_epochs", 1, "--max_train_samples", 12)
    exact = train_here("bert_fine_tuning_LoRA.py", tiny, prepared[1], *few)
    # As on a CPU without bf16: the same is computed, in more time.
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    try:
        slow = train_here("bert_fine_tuning_LoRA.py", tiny, prepared[1], *few, "--precision", "bf16")
    finally:
        products.round_products(False)
    assert "does not multiply bf16" in slow.stderr and "does not multiply" not in exact.stderr
    other, plain = sorted(runs(), key=lambda run: -run.info.start_time)
    (steps, losses), (plain_steps, plain_losses) = (
        zip(*curve(run.info.run_id), strict=True) for run in (other, plain)
    )
    assert steps == plain_steps and losses == pytest.approx(plain_losses, rel=0.03)
    assert losses != plain_losses
    assert weights(other).keys() == weights(plain).keys()


@pytest.mark.long
@pytest.mark.parametrize(
    "script",
    ["bert_fine_tuning_LoRA.py", "bert_fine_tuning.py", "bert_fine_tuning_prompt_encoder.py"],
)
def test_an_interrupted_run_goes_on_to_the_same_weights(script, tiny, prepared, store, tmp_path):
    flags = ("--save_steps", 4, "--num_train_epochs", 4)
    train_here(script, tiny, prepared[1], *flags)
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

    train_here(script, tiny, prepared[1], *flags, "--output_dir", output, "--resume")
    gone_on = mlflow.get_run(cut.info.run_id)
    assert gone_on.info.status == "FINISHED" and len(runs()) == 2
    assert same(weights(gone_on), weights(whole))
    for name in ("test_f1", "best_validation_f1"):
        assert gone_on.data.metrics[name] == whole.data.metrics[name]
    assert dict(curve(cut.info.run_id)) == dict(curve(whole.info.run_id))


@pytest.mark.long
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
    train_here("bert_fine_tuning_LoRA.py", tiny, prepared[1])
    alone = next(r for r in runs() if r.info.run_id != run.info.run_id)
    shared, single = dict(curve(run.info.run_id)), dict(curve(alone.info.run_id))
    assert shared.keys() == single.keys()
    assert shared == pytest.approx(single, rel=1e-4)


@pytest.mark.long
def test_skip_finished_trains_nothing_twice(tiny, prepared, store):
    for with_flags in (train_here, train):
        done = with_flags("bert_fine_tuning_IA3.py", tiny, prepared[1], "--skip_finished")
    assert "nothing to do" in done.stdout and len(runs()) == 1


@pytest.mark.slow
def test_a_diverging_run_stops_with_its_step_and_is_marked_failed(tiny, prepared, store):
    flags = ("--learning_rate", 1e30, "--max_grad_norm", 1e30, "--warmup_ratio", 0)
    done = train_here("bert_fine_tuning.py", tiny, prepared[1], *flags, check=False)
    assert done.returncode == 2 and "diverged" in done.stderr and "--learning_rate" in done.stderr
    assert [run.info.status for run in runs()] == ["FAILED"]
