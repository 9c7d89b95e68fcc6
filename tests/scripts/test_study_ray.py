"""A study on Ray Tune: a cluster of processes, one of which is killed; trials that are searched, and stopped early."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pandas as pd
import psutil
import pytest
import yaml
from datasets import Dataset, DatasetDict

from common.data import questions
from common.paths import ROOT
from tests.support.questions import EXAMPLES
from tests.support.stores import in_force
from tests.support.techniques import TECHNIQUES
from tests.support.trained import prepare_data

pytest.importorskip("ray", reason="Ray is not installed: pip install -r requirements-ray.txt")
pytest.importorskip("optuna", reason="Optuna is not installed: pip install -r requirements-ray.txt")

MIB = 2**20


@pytest.fixture(scope="module")
def base(tiny, tmp_path_factory):
    """A store, and the fields of every study here."""
    folder = tmp_path_factory.mktemp("ray-study")
    with in_force(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_worker_niceness", "0")
        prepare_data(folder, "v1.1")
        yield {
            "model_checkpoint": tiny("bert"), "data_dir": str(folder / "data"), "max_length": 96, "doc_stride": 16,
            "batch_size": 1, "num_train_epochs": 3, "logging_steps": 1, "save_steps": 1, "warmup_ratio": 0.0,
        }  # fmt: skip


@pytest.fixture(scope="module")
def cluster():
    """(its address, its two workers' nodes): one CPU each, the head has none."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Ray would have its workers wait for everyone else.
        patch.setenv("RAY_worker_niceness", "0")
        small = {"object_store_memory": 80 * MIB, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
        nodes = [made.add_node(num_cpus=1, **small) for _ in range(2)]
        made.wait_for_nodes()
        yield made, nodes
        made.shutdown()


def learnable_data(folder):
    """A data folder whose validation questions are those of training: whoever trains at all is seen to learn them."""
    examples = [e for e in EXAMPLES if e["answers"]["text"]]
    parts = {
        part: Dataset.from_list([e | {"id": f"{part}-{e['id']}"} for e in examples])
        for part in ("train", "validation", "test")
    }
    DatasetDict(parts).save_to_disk(str(folder / "saved"))
    questions.prepare_saved(folder / "saved", folder / "data")
    return str(folder / "data")


def start(folder, content, *flags):
    """The study as it is run, in a process of its own; (process, folder of the study)."""
    file = folder / f"{content['name']}.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    command = [sys.executable, str(ROOT / "scripts" / "study.py"), str(file), *flags]
    command += ["--output_dir", str(folder / "results")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
    return process, folder / "results" / content["name"]


def end(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, f"{out[-3000:]}\n{err[-3000:]}"
    return out, err


def table(folder):
    return pd.read_csv(folder / "study.csv").set_index("name")


def measures(run_id):
    """Everything measured of a run that must not depend on where it ran, and its loss by step."""
    metrics = mlflow.get_run(run_id).data.metrics
    spent = ("seconds", "per_second", "memory_mib")
    curve = mlflow.MlflowClient().get_metric_history(run_id, "train_loss")
    steps = {point.step: point.value for point in curve}
    return {k: v for k, v in metrics.items() if not k.endswith(spent)}, steps


def row_process(name, folder):
    """The process that trains a row, once it has written a checkpoint from which it can continue."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if command[1:2] and "bert_fine_tuning" in command[1] and any(f"/{name}/" in a for a in command):
                (output,) = [yaml.safe_load((folder / "runs" / name / "row.yaml").read_text())["output_dir"]]
                if list(Path(output).glob("checkpoint-*/trainer_state.json")):
                    return process, Path(output)
        time.sleep(0.02)
    raise AssertionError(f"no process of {name} has written a checkpoint")


@pytest.mark.long
def test_a_row_whose_machine_dies_goes_on_on_another_to_the_same_result(base, cluster, tmp_path):
    made, _ = cluster
    base = base | {"num_train_epochs": 20, "save_steps": 20, "experiment_name": "killed"}
    content = {
        "name": "killed",
        "description": "A machine dies.",
        "base": base,
        "techniques": ["lora", "ia3"],
    }
    process, folder = start(tmp_path, content, "--backend", "ray", "--address", made.address)
    name = "lora-seed=42"
    row, output = row_process(name, folder)
    raylet = next(p for p in row.parents() if "raylet" in p.cmdline()[0])
    begun = json.loads((output / "run.json").read_text())["run_id"]
    raylet.kill()
    out, _ = end(process)
    assert not row.is_running()
    assert f"{name}: its worker died; it continues from its last checkpoint" in out
    said = (folder / "logs" / f"{name}.log").read_text()
    assert said.count("holds nothing to go on from") == 1
    found = table(folder)
    assert list(found["status"]) == ["finished", "finished"] and found.loc[name, "run_id"] == begun

    import torch

    from common.training.fit import fit
    from common.training.settings import RunArgs

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for key in ("lora", "ia3"):
            fields = base | {"experiment_name": "undisturbed", "output_dir": str(tmp_path / key)}
            epochs = float(fields.pop("num_train_epochs"))
            run = fit(TECHNIQUES[key](num_train_epochs=epochs), RunArgs(**fields))
            assert measures(found.loc[f"{key}-seed=42", "run_id"]) == measures(run)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.long
def test_a_stopped_search_goes_on_and_a_hopeless_trial_is_stopped_early(base, tmp_path):
    """One trial after another, on a Ray of its own, for each asks for the whole machine."""
    hopeless = "standard-learning_rate=1e-12-seed=42"
    content = {
        "name": "search",
        "description": "One trial is hopeless.",
        "base": base
        | {
            "experiment_name": "search",
            "num_train_epochs": 30,
            "save_steps": 50,
            "data_dir": learnable_data(tmp_path),
        },
        "techniques": {
            "standard": {"grid": {"learning_rate": ["1e-3", "1e-12"]}},
            "ia3": {"search": {"learning_rate": {"loguniform": [1e-4, 1e-1]}}},
        },
        "trials": 2,
        "scheduler": {"asha": {"reduction_factor": 2}},
        "resources": {"cpus": os.cpu_count()},
    }
    process, folder = start(tmp_path, content, "--backend", "ray")
    row, _ = row_process("standard-learning_rate=0.001-seed=42", folder)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and "Stopped. To continue: " in err
    assert "Traceback" not in err and "SIGTERM" not in err
    row.wait(timeout=30)
    out, err = end(start(tmp_path, content, "--backend", "ray")[0])
    found = table(folder)
    assert len(found) == 4 and "ASHA stopped it after epoch" in found.loc[hopeless, "failure"]
    assert found.loc[hopeless, "status"] == "stopped" and hopeless in (folder / "report.md").read_text()
    assert "finished" in set(found.loc[found["technique"] == "IA3", "status"])
    rates = found.loc[found["technique"] == "IA3", "learning_rate"]
    assert rates.nunique() == 2 and rates.between(1e-4, 1e-1).all()
    runs = mlflow.search_runs(experiment_names=["search"], output_format="list")
    (stopped,) = [run for run in runs if run.info.run_name == hopeless]
    assert stopped.info.status == "KILLED" and "ASHA" in stopped.data.tags["failure"]
    assert len(mlflow.MlflowClient().get_metric_history(stopped.info.run_id, "validation_f1")) < 30
    assert not list((folder / "checkpoints").glob("standard-*/run.json"))
    assert "Traceback" not in err


@pytest.mark.long
def test_a_study_that_stops_when_it_knows_trains_a_seed_of_each_side_by_side(base, tmp_path):
    """No difference below a million points matters: one seed is enough. The report says so."""
    content = {
        "name": "deciding",
        "description": "One seed decides.",
        "base": base | {"experiment_name": "deciding", "num_train_epochs": 1},
        "techniques": ["lora", "ia3"],
        "seeds": [42, 43, 44],
        "stop": {"when": "decided", "smallest_difference": 1e6},
    }
    out, err = end(start(tmp_path, content, "--backend", "ray")[0])
    folder = tmp_path / "results" / "deciding"
    assert list(table(folder)["status"]) == 2 * ["finished", "stopped", "stopped"]
    assert "no more seeds; decided after 1 seed: validation F1 " in out and "Traceback" not in err
    report = (folder / "report.md").read_text()
    assert "What was decided early" in report and "4 of 6 runs were left out, which saved" in report
