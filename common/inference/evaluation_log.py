"""An evaluation into MLflow: one run for each model, beside the model."""

from collections.abc import Mapping
from typing import Any

from ..files import write_json
from ..reports.run_figures import slice_scores
from ..scoring.names import LABELS
from ..scratch import scratch
from ..tracking import evaluations
from .evaluating import Evaluation, Result
from .evaluation_report import as_markdown, metrics


def log(
    evaluation: Evaluation, params: Mapping[str, Any], experiment_name: str | None = None
) -> dict[str, str]:
    """Log what each model did; model → its evaluation's run. experiment_name: for models that are not in the store."""
    runs: dict[str, str] = {}
    by_model: dict[str, list[Result]] = {}
    for result in evaluation.results:
        by_model.setdefault(result.model.name, []).append(result)
    document = as_markdown(evaluation)
    for name, results in by_model.items():
        origin = results[0].model.origin
        with scratch() as folder:
            for result in results:
                place = folder / result.data.key
                place.mkdir()
                write_json(place / "predictions.json", result.rows())
                result.slices.to_csv(place / "slices.csv", index=False, float_format="%.4f")
                task = evaluation.task
                slice_scores(result.slices, LABELS[task.metric], task.unit).savefig(place / "slices.png")
            (folder / "evaluation.md").write_text(document, encoding="utf-8")
            runs[name] = evaluations.log(
                name,
                [_evaluated(result) for result in results],
                folder,
                model_id=origin.model_id,
                run_id=origin.run_id,
                params={"model": name, "model_content": origin.content, **params},
                experiment_name=experiment_name,
            )
    return runs


def _evaluated(result: Result) -> evaluations.Evaluated:
    data = result.data
    profile = {"examples": len(data.examples), "fingerprint": data.fingerprint}
    if data.variant:
        profile["variant"] = data.variant
    return evaluations.Evaluated(data.title, data.fingerprint, profile, metrics(result))
