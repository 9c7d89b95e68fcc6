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
import pytest
import yaml

from common import tracking
from common.paths import ROOT
from tests.trained import prepare_data, store

pytest.importorskip("ray", reason="Ray is not installed: pip install -r requirements-ray.txt")
pytest.importorskip("optuna", reason="Optuna is not installed: pip install -r requirements-ray.txt")

MEASURED = ["training_seconds", "train_samples_per_second", "peak_memory_mib"]
MIB = 2**20


@pytest.fixture(scope="module")
def base(tiny, tmp_path_factory):
    """A store, and the fields of every study here."""
    folder = tmp_path_factory.mktemp("ray-study")
    with store(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
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
        patch.setenv("PYTHONPATH", str(ROOT))
        small = {"object_store_memory": 80 * MIB, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
        nodes = [made.add_node(num_cpus=1, **small) for _ in range(2)]
        made.wait_for_nodes()
        yield made, nodes
        made.shutdown()


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
