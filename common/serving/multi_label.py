"""Multi-label classification as it is served: texts, or pairs of texts, in, every label that each has out."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array

from ..tasks.classification.texts import independent_probabilities
from .classification import (
    ALTERNATIVES,
    INPUTS,
    MAX_CHARACTERS,
    MAX_ROWS,
    Classifier,
    checked_top_k,
)
from .classification import ASKED as ASKED
from .classification import is_taken as is_taken
from .requests import as_frame, check_parameters, checked_rows, in_force, refuse
from .runtime import fetch

PARAMETERS = {"top_k": 1, "threshold": None}
"""What a request may leave out, or give as null; None stands for the model's own threshold of each label."""

EXAMPLE_PARAMETERS = {"top_k": 1}

ANSWER = {"labels": Array(DataType.string), "scores": Array(DataType.double)}


def signature(request: Mapping[str, Any]) -> ModelSignature:
    """MLflow's signature of a model that is asked with such a request."""
    return ModelSignature(
        inputs=INPUTS["text_pair" in request],
        outputs=Schema([*(ColSpec(kind, name) for name, kind in ANSWER.items()), ALTERNATIVES]),
        params=ParamSchema(
            [
                ParamSpec("top_k", DataType.long, PARAMETERS["top_k"]),
                ParamSpec("threshold", DataType.double, PARAMETERS["threshold"]),
            ]
        ),
    )


SIGNATURE = signature(ASKED)


def ranked(names: Sequence[str], probabilities: Sequence[float]) -> list[dict[str, Any]]:
    """`label` and `score` of every label, the likeliest first."""
    pairs = zip(names, probabilities, strict=True)
    return [{"label": name, "score": p} for name, p in sorted(pairs, key=lambda pair: -pair[1])]


class MultiLabelClassifier(Classifier):
    """A saved multi-label model ready to classify, without MLflow and without the hub."""

    def probabilities(self, records: Sequence[Mapping[str, str]]) -> np.ndarray:
        """(records, labels): the probability of each label by itself; at least one record."""
        return independent_probabilities(self.logits(records))

    def thresholds(self, threshold: float | None = None) -> np.ndarray:
        """(labels,): what the probability of each label must reach; the model's own, or one for all."""
        if threshold is not None:
            return np.full(len(self.names), threshold)
        return np.array(self.info.settings["thresholds"])

    def label_sets(
        self, records: Sequence[Mapping[str, str]], threshold: float | None = None
    ) -> list[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
        """For each record (its labels, the other labels): lists of `label` and `score`, the likeliest first."""
        if not records:
            return []
        limits = dict(zip(self.names, self.thresholds(threshold).tolist(), strict=True))
        made = []
        for each in self.probabilities(records).tolist():
            labels = ranked(self.names, each)
            given = {entry["label"] for entry in labels if entry["score"] >= limits[entry["label"]]}
            made.append(
                (
                    [entry for entry in labels if entry["label"] in given],
                    [entry for entry in labels if entry["label"] not in given],
                )
            )
        return made


class MultiLabelClassification(PythonModel):
    """MLflow's face of `MultiLabelClassifier`: checks requests, answers in rows."""

    def load_context(self, context: Any) -> None:
        """Open the saved model; an adapter's shared base is fetched from the store where it is not inside."""
        self.classifier = MultiLabelClassifier(*fetch(context))
        self.asked = self.classifier.asked

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Rows of `labels` and `scores`, two lists, the likeliest label first; empty ones where a text has no label.

        With `top_k` above 1 also `alternatives`: the likeliest of the other labels, up to `top_k` labels in all.
        """
        records = checked_rows(model_input, in_force(self.asked), rows=MAX_ROWS, characters=MAX_CHARACTERS)
        check_parameters(params, list(PARAMETERS))
        top_k, threshold = checked_top_k(params or {}), _checked_threshold(params or {})
        rows: list[dict[str, Any]] = []
        for has, others in self.classifier.label_sets(records, threshold):
            row: dict[str, Any] = _as_row(has)
            if top_k > 1:
                row["alternatives"] = others[: max(0, top_k - len(has))]
            rows.append(row)
        return as_frame(rows, model_input, list(ANSWER))


def _as_row(labels: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {
        "labels": [entry["label"] for entry in labels],
        "scores": [entry["score"] for entry in labels],
    }


def _checked_threshold(params: Mapping[str, Any]) -> float | None:
    threshold = params.get("threshold")
    if threshold is not None and (math.isnan(threshold) or not 0 <= threshold <= 1):
        refuse(f"threshold is {threshold}; choose 0 to 1.")
    return None if threshold is None else float(threshold)


def best_answers(bundle: Path, records: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """`labels` and `scores` of each record, and the `probabilities` of every label, by a saved model with its base inside,
    without MLflow between."""
    return [
        _as_row(has) | {"probabilities": {entry["label"]: entry["score"] for entry in [*has, *others]}}
        for has, others in MultiLabelClassifier(bundle).label_sets(records)
    ]


MODEL = MultiLabelClassification
