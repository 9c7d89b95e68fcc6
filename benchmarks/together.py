"""Ten trainings at once on one new sqlite store, and two at once with one output folder. Prints JSON: which runs have finished, and
whether each has every point of its curve once, its model and its predictions.

  python benchmarks/together.py --trainings 10
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _path  # noqa: F401
from kill import small_model

from common.paths import ROOT

FLAGS = (
    "--max_train_samples 40 --max_validation_samples 10 --max_test_samples 10 --max_length 96 --doc_stride 16 --batch_size 4 "
    "--num_train_epochs 2 --logging_steps 1"
)


def start(folder: Path, seed: int, out: str) -> subprocess.Popen:
    """A training that logs each of its steps."""
    environment = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    flags = ["--data_dir", folder / "data", "--model_checkpoint", folder / "model", "--seed", seed]
    command = [sys.executable, ROOT / "scripts" / "bert_fine_tuning_LoRA.py", *flags, *FLAGS.split()]
    return subprocess.Popen(
        [*map(str, command), "--output_dir", str(folder / out)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def logged_steps(run_id: str) -> list[int]:
    """The steps whose loss the training has logged, as its own history has them."""
    import mlflow

    history = mlflow.artifacts.load_dict(f"runs:/{run_id}/log_history.json")
    return [entry["step"] for entry in history if "loss" in entry]


def run(folder: Path, trainings: int) -> dict:
    """All start at once, with neither store nor data there; then two more with one output folder."""
    import mlflow

    small_model(folder / "model")
    started = time.monotonic()
    processes = [start(folder, seed, f"out-{seed}") for seed in range(trainings)]
    said = [process.communicate()[0] for process in processes]
    seconds = time.monotonic() - started
    pair = [start(folder, 1000, "same") for _ in range(2)]
    pair_said = [process.communicate()[0] for process in pair]
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    client = mlflow.MlflowClient()
    runs = mlflow.search_runs(
        search_all_experiments=True, filter_string="tags.technique != ''", output_format="list"
    )
    curves = {r.info.run_id: client.get_metric_history(r.info.run_id, "train_loss") for r in runs}
    steps = {id_: sorted(point.step for point in curve) for id_, curve in curves.items()}
    whole = [
        r.info.status == "FINISHED"
        and steps[r.info.run_id] == list(range(1, len(steps[r.info.run_id]) + 1))
        # What the training itself kept of its curve; a sample's questions make now more windows, now fewer.
        and steps[r.info.run_id] == logged_steps(r.info.run_id)
        and bool(client.list_artifacts(r.info.run_id, "predictions"))
        and len(mlflow.search_logged_models(
            [r.info.experiment_id],
            filter_string=f"source_run_id = '{r.info.run_id}'",
            output_format="list",
        )) == 1
        for r in runs
    ]  # fmt: skip
    return {
        "trainings": trainings,
        "seconds": round(seconds),
        "ended_with": [process.returncode for process in processes],
        "whole": sum(whole),
        "runs": len(runs),
        "locked": sum("locked" in text for text in said),
        "errors": [text[-400:] for p, text in zip(processes, said, strict=True) if p.returncode],
        "one_folder": sorted(process.returncode for process in pair),
        "one_folder_said": next(
            (line for text in pair_said for line in text.splitlines() if "in use" in line), None
        ),
    }


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--trainings", type=int, default=10)
    args = p.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="together-"))
    print(json.dumps(run(folder, args.trainings), indent=1))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
