"""Real trainings of a tiny model, in a store that is in force, and what they left there."""

from pathlib import Path

import mlflow
from safetensors.torch import load_file

from common.training import fit
from common.training.settings import RunArgs

FIELDS = {
    "max_length": 96,
    "doc_stride": 16,
    "batch_size": 2,
    "logging_steps": 2,
    "save_steps": 2,
    "precision": "fp32",
}


def train(technique, place, checkpoint, out, experiment, **fields):
    """Train on the data in a place; gives the run. out: the output folder."""
    args = {"model_checkpoint": checkpoint, "data_dir": str(place / "data"), "output_dir": str(out)}
    args |= {"experiment_name": experiment, **FIELDS}
    return mlflow.get_run(fit.fit(technique, RunArgs(**args | fields)))


def curve(run, name="train_loss"):
    return [(m.step, m.value) for m in mlflow.MlflowClient().get_metric_history(run.info.run_id, name)]


def weights(run):
    """The trained tensors of the one model that a run logged."""
    (model,) = mlflow.search_logged_models(
        [run.info.experiment_id], f"source_run_id = '{run.info.run_id}'", output_format="list"
    )
    folder = mlflow.artifacts.download_artifacts(f"models:/{model.model_id}")
    (file,) = Path(folder, "artifacts", "bundle").rglob("*.safetensors")
    return load_file(file)


def same(run, other):
    """Whether two runs ended with the same weights, bit for bit."""
    ours, theirs = weights(run), weights(other)
    return ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)
