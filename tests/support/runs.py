"""Runs as training leaves them, without any training."""

import numpy as np

RECORD = {
    "source": "sample",
    "name": "packaged sample",
    "version": "v2.0",
    "files": [{"name": "train.json", "sha256": "00", "bytes": 10}],
    "counts": {"train": {"questions": 30}, "validation": {"questions": 5}, "test": {"questions": 20}},
    "fingerprint": "ab" * 32,
}


def log_finished(
    technique="LoRA",
    f1=(1.0, 0.0),
    *,
    experiment="squad-qa",
    checkpoint="embedded",
    record=RECORD,
    ids=None,
    trainable=1e6,
    task=None,
    tags=None,
    **parameters,
) -> str:
    """Log a finished run that scored `f1` (0 to 1) on the questions `ids`; returns its id.

    task: "classification" logs them as accuracies; None is a run from before there were tasks.
    """
    from common.tracking import runs

    f1 = np.asarray(f1, dtype=float)
    ids = [f"q{i}" for i in range(len(f1))] if ids is None else ids
    about = {
        "technique": technique,
        "family": "bert",
        "checkpoint": checkpoint,
        "data_name": record["name"],
        "data_version": record["version"],
        "data_fingerprint": record["fingerprint"],
    }
    if task:
        about["task"] = task
    with runs.start(experiment, technique, about | (tags or {})) as run:
        run.log_params(
            {"learning_rate": 1e-3, "num_train_epochs": 2.0, "max_train_samples": None} | parameters
        )
        scores = {"test_f1": 100 * f1.mean(), "test_exact_match": 100 * (f1 == 1).mean()}
        if task == "classification":
            scores = {"test_f1": 50.0, "test_accuracy": 100 * f1.mean()}
        ends = {f"{name}_{end}": value for name, value in scores.items() for end in ("low", "high")}
        costs = {"trainable_parameters": trainable, "total_parameters": 2e7, "training_seconds": 3725.0}
        run.log_metrics(scores | ends | costs | {"test_examples": len(f1)})
        rows = [
            {"id": id_, "accuracy": value}
            if task == "classification"
            else {"id": id_, "f1": value, "exact_match": float(value == 1)}
            for id_, value in zip(ids, f1.tolist(), strict=True)
        ]
        run.log_dict(rows, "predictions/test.json")
    return run.id
