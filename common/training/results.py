"""What a run keeps of its tested model: the figures, the predictions, the curves, the saved model and one sentence."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..files import write_json
from ..models import bundles, saving
from ..scoring import bootstrap
from ..scoring.names import LABELS, in_metric
from ..tasks.interface import Decision, Extras, Task
from ..tracking.run_log import RunLog
from . import confidence
from .evaluation import Split
from .gradient_norms import split_off
from .planning import Plan


@dataclass(frozen=True)
class Tested:
    """A trained model's predictions and scores."""

    validation: Split
    test: Split
    decision: Decision
    """What validation decided, such as the threshold of "no answer"; None: nothing."""
    validation_predictions: list
    test_predictions: list
    validation_scores: dict[str, float]
    """In percent."""
    test_scores: dict[str, float]
    """In percent."""
    each: dict[str, Any]
    """Metric → array of the score of each test example, from 0 to 1."""
    validated_each: dict[str, Any]
    """The same of each validation example."""
    seconds: float
    """Spent on the test."""
    confidence: confidence.Tested | None
    """None for a task without a confidence."""


def figures(tested: Tested, task: Task) -> dict[str, float]:
    """The metrics of the test: scores in percent, their 95% bootstrap intervals, speed."""
    found = {
        f"test_{name}": value for name, value in tested.test_scores.items() if name not in ("exact", "total")
    }
    for name in task.metrics:
        found[f"test_{name}_low"], found[f"test_{name}_high"] = bootstrap.bootstrap_interval(
            100 * tested.each[name]
        )
        found[f"best_validation_{name}"] = tested.validation_scores[name]
        for origin, members in _by_origin(tested.test.examples).items():
            found[f"test_{name}_{origin}"] = float(100 * np.asarray(tested.each[name], float)[members].mean())
    found |= {
        "evaluation_seconds": tested.seconds,
        "evaluation_samples_per_second": len(tested.test.features) / tested.seconds,
        "test_examples": len(tested.test.examples),
    }
    if tested.decision is not None:
        found |= task.decided(tested.decision)
    return found | (tested.confidence.figures() if tested.confidence else {})


def _by_origin(examples: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Set that examples of mixed data are of, as it is named in metrics → their indices."""
    found: dict[str, list[int]] = {}
    for i, example in enumerate(examples):
        if example.get("origin"):
            found.setdefault(in_metric(example["origin"]), []).append(i)
    return found


def sentence(planned: Plan, found: Mapping[str, float]) -> str:
    """The result in one sentence. found: what `figures` gave."""
    scores = ", ".join(
        f"{LABELS[name]} {found[f'test_{name}']:.1f} [{found[f'test_{name}_low']:.1f}, {found[f'test_{name}_high']:.1f}]"
        for name in planned.task.metrics
    )
    return f"{planned.technique.name} on {planned.record.title} ({found['test_examples']} test examples): {scores}"


def write_predictions(tested: Tested, task: Task, folder: Path) -> None:
    """Write test.json, validation.json, validation_scores.json and what else the task keeps of a test into a new folder."""
    folder.mkdir()
    rows = [
        {"id": example["id"]}
        | {name: float(tested.each[name][i]) for name in task.metrics}
        | task.row(prediction, example)
        | ({"calibrated": float(tested.confidence.calibrated[i])} if tested.confidence else {})
        for i, (prediction, example) in enumerate(
            zip(tested.test_predictions, tested.test.examples, strict=True)
        )
    ]
    write_json(folder / "test.json", rows)
    validated = zip(tested.validation_predictions, tested.validation.examples, strict=True)
    write_json(folder / "validation.json", {e["id"]: task.row(p, e)["prediction"] for p, e in validated})
    scores = {
        example["id"]: {name: float(tested.validated_each[name][i]) for name in task.metrics}
        for i, example in enumerate(tested.validation.examples)
    }
    write_json(folder / "validation_scores.json", scores)
    write_extras(task.extras(tested.test_predictions, tested.test.examples), folder)


def write_extras(extras: Extras, folder: Path) -> None:
    """Write further artifacts of a test into a folder."""
    # matplotlib is not needed before the first step.
    from ..reports import run_figures

    for name, content in extras.documents.items():
        write_json(folder / name, content)
    for name, rows in extras.tables.items():
        with open(folder / name, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    for name, (counts, names) in extras.confusion.items():
        run_figures.confusion_matrix(counts, names).savefig(folder / name)
    for name, arrays in extras.arrays.items():
        np.savez_compressed(folder / name, allow_pickle=False, **arrays)


def log_curves(log: RunLog, log_history: list[dict[str, Any]], planned: Plan) -> None:
    """Log the trainer's history, and the gradient norms that it may hold, as files and figures."""
    from ..reports import run_figures
    from ..reports.study_curves import gradient_flow

    history, norms = split_off(log_history)
    log.log_dict(history, "log_history.json")
    log.log_figure(run_figures.loss_curve(history, planned.task.metric), "loss_curve.png")
    if norms:
        log.log_dict(norms, "gradient_norms.json")
        if figure := gradient_flow({planned.technique.name: norms}):
            log.log_figure(figure, "gradient_flow.png")


@dataclass(frozen=True)
class Saved:
    """A model saved as folders."""

    bundle: Path
    base: Path | None
    """The base of an adapter; None where all weights lie in the bundle."""
    base_fingerprint: str
    mib: float
    """Size of the trained weights."""


def save_model(model: torch.nn.Module, tokenizer: Any, planned: Plan, tested: Tested, folder: Path) -> Saved:
    """Save the trained model into new folders below a folder."""
    bundle, base = folder / "bundle", None
    info = bundles.BundleInfo(
        technique=planned.technique.name,
        model_type=planned.family.model_type,
        checkpoint=planned.checkpoint.name,
        base_fingerprint="",
        task=planned.task.name,
        head=planned.head,
        settings=stored_settings(planned, tested),
    )
    method = planned.technique.method(planned.family)
    if method is not None:
        base = folder / "base"
        fingerprint = saving.save_base(planned.checkpoint, base, planned.head, **planned.config)
        info = replace(info, base_fingerprint=fingerprint)
    saving.save_bundle(bundle, info, model, tokenizer, method)
    return Saved(bundle, base, info.base_fingerprint, trained_mib(bundle))


def stored_settings(planned: Plan, tested: Tested) -> dict[str, Any]:
    """What the module that serves the task needs to know of a run."""
    found = planned.task.stored_settings(planned.args, planned.record, tested.decision)
    return found | (tested.confidence.fitted.settings() if tested.confidence else {})


def trained_mib(bundle: Path) -> float:
    """Size of the trained weights that a saved model without its base holds, in MiB."""
    return weights_mib(bundle / ("adapter" if (bundle / "adapter").is_dir() else "base"))


def weights_mib(folder: Path) -> float:
    """Size of the weights in a folder, in MiB."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 2**20
