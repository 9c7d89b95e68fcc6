"""What validation says of a model's confidence, stored with the model; and how far that holds on the test data."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..files import write_json
from ..reports.text_tables import to_markdown
from ..scoring import abstention, calibration
from ..scoring.abstention import Promise
from ..scoring.calibration import Candidates
from ..tasks.interface import Task

FOLDER = "confidence"
"""Folder among a run's artifacts."""

POINTS = 200
"""Points of the risk-coverage curve that are kept as numbers."""


@dataclass(frozen=True)
class Confidence:
    """What was found on validation."""

    temperature: float
    promises: tuple[Promise, ...]
    """One for each allowed error, the smallest first."""
    examples: int
    """Validation examples that the promises rest on."""
    groups: int | None = None
    """Groups that these were drawn in, such as articles; None where each was drawn by itself."""

    def settings(self) -> dict[str, Any]:
        """As a saved model's settings hold it."""
        return {
            "temperature": self.temperature,
            "abstention": {
                "confidence": abstention.CONFIDENCE,
                "examples": self.examples,
                **({} if self.groups is None else {"groups": self.groups}),
                "thresholds": [[promise.max_error, promise.threshold] for promise in self.promises],
            },
        }


def fit(
    task: Task,
    predictions: Sequence[Any],
    each: Mapping[str, np.ndarray],
    choices: int,
    groups: Sequence[str] | None = None,
) -> Confidence | None:
    """Temperature and certified thresholds, from validation; None for a task without a confidence.

    each: {metric: score of each example}. choices: how many epochs there were to choose from by the same examples. groups: as
    `Task.groups` gives them.
    """
    found = _graded(task, predictions, each)
    if found is None:
        return None
    candidates, right = found
    # Of the raw confidence: the labels that certify have no part in it.
    promises = abstention.certify(candidates.confidence(), right, choices=choices, groups=groups)
    temperature = calibration.fit_temperature(candidates, right)
    return Confidence(temperature, tuple(promises), len(right), number_of(groups))


def number_of(groups: Sequence[str] | None) -> int | None:
    """How many groups there are; None where each example was drawn by itself."""
    return None if groups is None else len(set(groups))


@dataclass(frozen=True)
class Tested:
    """A model's confidence on the test data."""

    fitted: Confidence
    raw: np.ndarray
    """(N,) confidence in each test answer, which abstention goes by."""
    calibrated: np.ndarray
    """(N,) the same at the fitted temperature, which is served as the score."""
    right: np.ndarray
    """(N,) whether the answer is right."""

    def figures(self) -> dict[str, float]:
        """The metrics: calibration errors and the area under the risk-coverage curve in percent, and the temperature."""
        found = {
            "temperature": self.fitted.temperature,
            "test_aurc": 100 * calibration.aurc(self.raw, self.right),
        }
        for end, confidence in (("", self.calibrated), ("_raw", self.raw)):
            for name, equal_mass in (("ece", True), ("ece_equal_width", False)):
                error = calibration.calibration_error(confidence, self.right, equal_mass=equal_mass)
                found[f"test_{name}{end}"] = 100 * error
        return found

    def table(self) -> pd.DataFrame:
        """A row for each allowed error: what was promised on validation, what became of it on test; shares are 0 to 1."""
        rows = []
        for promise in self.fitted.promises:
            answered, wrong = abstention.applied(promise, self.raw, self.right)
            rows.append(
                {
                    "max_error": promise.max_error,
                    "threshold": promise.threshold,
                    "validation_coverage": promise.answered / self.fitted.examples,
                    "validation_error": _share(promise.wrong, promise.answered),
                    "test_coverage": answered / len(self.right),
                    "test_answered": answered,
                    "test_error": _share(wrong, answered),
                }
            )
        return pd.DataFrame(rows)

    def write(self, folder: Path, unit: str) -> None:
        """Write confidence.json, abstention.csv, abstention.md and the figures into a new folder. unit: of the examples."""
        # matplotlib is not needed before the first step.
        from ..reports.confidence_figures import reliability_diagram, risk_coverage_curve

        folder.mkdir()
        figures, table = self.figures(), self.table()
        bins = {
            "raw": calibration.reliability(self.raw, self.right),
            "calibrated": calibration.reliability(self.calibrated, self.right),
        }
        coverage, risk = calibration.risk_coverage(self.raw, self.right)
        kept = np.unique(np.linspace(0, len(coverage) - 1, POINTS).round().astype(int))
        write_json(
            folder / "confidence.json",
            {
                **figures,
                "validation_examples": self.fitted.examples,
                "validation_groups": self.fitted.groups,
                "reliability": {name: [each._asdict() for each in part] for name, part in bins.items()},
                "risk_coverage": {"coverage": coverage[kept].tolist(), "risk": risk[kept].tolist()},
                "abstention": [asdict(promise) for promise in self.fitted.promises],
            },
        )
        table.to_csv(folder / "abstention.csv", index=False, float_format="%.6g")
        (folder / "abstention.md").write_text(self._page(table, unit), encoding="utf-8")
        named = {
            f"{name} (ECE {figures[f'test_ece{end}']:.1f}%)": bins[name]
            for name, end in (("raw", "_raw"), ("calibrated", ""))
        }
        reliability_diagram(named, unit).savefig(folder / "reliability.png")
        shown = table[table["test_answered"] > 0]
        promises = list(
            shown[["max_error", "test_coverage", "test_error"]].itertuples(index=False, name=None)
        )
        risk_coverage_curve(coverage, risk, promises, unit).savefig(folder / "risk_coverage.png")

    def _page(self, table: pd.DataFrame, unit: str) -> str:
        promised = table["threshold"].notna()
        shown = pd.DataFrame(
            {
                "allowed error": [f"{value:.0%}" for value in table["max_error"]],
                "least raw score": [
                    f"{value:.4g}" if held else "none can be promised"
                    for value, held in zip(table["threshold"], promised, strict=True)
                ],
                "answered in validation": _percent(table["validation_coverage"], promised),
                "wrong of these": _percent(table["validation_error"], promised),
                "answered in test": _percent(table["test_coverage"], promised),
                "wrong of these in test": _percent(table["test_error"], promised),
            }
        )
        level, examples = f"{abstention.CONFIDENCE:.0%}", f"{self.fitted.examples:,} validation {unit}"
        if self.fitted.groups is None or self.fitted.groups == self.fitted.examples:
            rests = f"certified on {examples}; exact if these and later ones are drawn independently of each other"
        else:
            rests = (
                f"certified on {examples} that were drawn in {self.fitted.groups:,} groups (articles, or paragraphs of one). Those "
                "of a group are right or wrong together, which is estimated, so the confidence is approximate; from few groups "
                "nothing is promised"
            )
        return (
            f"Below the least raw score the model abstains. With {level} confidence, for each allowed error by itself, its "
            f"remaining answers are wrong at most as often as is allowed ({rests}).\n\n{to_markdown(shown)}"
        )


def measure(
    fitted: Confidence, task: Task, predictions: Sequence[Any], each: Mapping[str, np.ndarray]
) -> Tested | None:
    """What a model's confidence is worth on test; None for a task without one. each: as in `fit`."""
    found = _graded(task, predictions, each)
    if found is None:
        return None
    candidates, right = found
    return Tested(fitted, candidates.confidence(), candidates.confidence(fitted.temperature), right)


def _graded(
    task: Task, predictions: Sequence[Any], each: Mapping[str, np.ndarray]
) -> tuple[Candidates, np.ndarray] | None:
    """(what the examples could have been answered with, whether each answer is right as a whole)."""
    candidates = task.candidates(predictions) if len(predictions) else None
    return None if candidates is None else (candidates, task.right_of(each))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _percent(values: pd.Series, held: pd.Series) -> list[str]:
    return [
        f"{value:.1%}" if known and value == value else "–" for value, known in zip(values, held, strict=True)
    ]
