"""Classification as it is served: texts in, labels out, from the same tokens and logits as in evaluation."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType, Array, Object, Property

from ..models.bundles import load_bundle
from ..models.families import uses_segment_ids
from ..tasks.batching import Collator
from ..tasks.classification.texts import make_texts, predict_logits, probabilities
from .requests import (
    FURTHER,
    PROMISED,
    PROMISED_SPECS,
    abstaining,
    as_frame,
    best_first,
    check_parameters,
    checked_rows,
    is_within,
    least_confidence,
    refuse,
)
from .runtime import fetch, share_cores

MAX_TEXT = 200_000
MAX_ROWS = 256
MAX_CHARACTERS = 4_000_000
MAX_LABELS = 100
"""Characters of a text, rows and characters of a request, labels for a text: more could run into the server's time-out."""

PARAMETERS = {"top_k": 1, **PROMISED}
"""What a request may leave out, or give as null."""

EXAMPLE_PARAMETERS = {"top_k": 1}

ASKED = {"text": MAX_TEXT}
"""The columns of a request and the most characters in each."""

ANSWER = {"label": DataType.string, "score": DataType.double}

SIGNATURE = ModelSignature(
    # Not string: of that MLflow makes "None" of null and "5" of 5 before `predict` can refuse them.
    inputs=Schema([ColSpec(AnyType(), name) for name in ASKED]),
    outputs=Schema(
        [
            *(ColSpec(kind, name, required=name in ANSWER) for name, kind in (ANSWER | FURTHER).items()),
            ColSpec(
                Array(
                    Object(
                        [Property(name, kind, name in ANSWER) for name, kind in (ANSWER | FURTHER).items()]
                    )
                ),
                "alternatives",
                required=False,
            ),
        ]
    ),
    params=ParamSchema([ParamSpec("top_k", DataType.long, PARAMETERS["top_k"]), *PROMISED_SPECS]),
)


class Classifier:
    """A saved model ready to classify, without MLflow and without the hub."""

    def __init__(self, bundle: str | Path, base: str | Path | None = None):
        self.model, self.tokenizer, self.info = load_bundle(Path(bundle), base and Path(base), merge=True)
        share_cores(self.model)
        self.collator = Collator(self.tokenizer.pad_token_id)
        # A fast tokenizer keeps its truncation as state, which two requests at once would take from each other.
        self.tokenizing = threading.Lock()

    def classify(
        self, records: Sequence[Mapping[str, str]], top_k: int = 1, max_error: float | None = None
    ) -> list[list[dict]]:
        """For each record (`text`) its labels, likeliest first: at most `top_k` dicts of `label`, `score`, its
        probability, and `raw_score`, the same before calibration. With `max_error` also `abstained`: where it is true the
        one label is empty. Of a text that is longer than the model's `max_length` in tokens, the beginning decides."""
        if not records:
            return []
        settings = self.info.settings
        least = least_confidence(settings, max_error)
        with self.tokenizing:
            texts = make_texts(
                self.tokenizer,
                records,
                max_length=settings["max_length"],
                segment_ids=uses_segment_ids(self.model.config),
                names=settings["labels"],
            )
        _, logits = predict_logits(self.model, texts, self.collator)
        ranked = []
        calibrated = probabilities(logits / settings.get("temperature", 1.0))
        for each in zip(calibrated.tolist(), probabilities(logits).tolist(), strict=True):
            named = sorted(zip(texts.names, *each, strict=True), key=lambda x: -x[2])
            labels = [{"label": label, "score": p, "raw_score": raw} for label, p, raw in named[:top_k]]
            ranked.append(abstaining(labels, least, {"label": ""}))
        return ranked


class Classification(PythonModel):
    """MLflow's face of `Classifier`: checks requests, answers in rows."""

    def load_context(self, context):
        """Open the saved model; an adapter's shared base is fetched from the store where it is not inside."""
        self.classifier = Classifier(*fetch(context))

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        """Rows of `label` and `score`; with `top_k` above 1 also `alternatives`, a list for each row."""
        records = checked_rows(model_input, ASKED, rows=MAX_ROWS, characters=MAX_CHARACTERS)
        params = params or {}
        top_k = _checked_top_k(params)
        ranked = self.classifier.classify(records, top_k, params.get("max_error"))
        rows = [best_first(labels, top_k, bool(params.get("raw_scores"))) for labels in ranked]
        return as_frame(rows, model_input, list(ANSWER))


def is_taken(record: Mapping[str, str]) -> bool:
    """Whether a served model takes this text, which evaluation may have classified all the same."""
    return is_within(record, ASKED)


def _checked_top_k(params: Mapping) -> int:
    check_parameters(params, list(PARAMETERS))
    top_k = PARAMETERS["top_k"] if params.get("top_k") is None else params["top_k"]
    if not 1 <= top_k <= MAX_LABELS:
        refuse(f"top_k is {top_k}; choose 1 to {MAX_LABELS}.")
    return top_k


def best_answers(bundle: Path, records: Sequence[Mapping[str, str]]) -> list[dict]:
    """The likeliest label of each record by a saved model with its base inside, without MLflow between."""
    return [ranked[0] for ranked in Classifier(bundle).classify(records)]


MODEL = Classification
