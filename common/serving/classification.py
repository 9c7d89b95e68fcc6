"""Classification as it is served: texts, or pairs of texts, in, labels out, from the same tokens and logits as in evaluation."""

import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType, Array, Object, Property

from ..models.bundles import load_bundle
from ..models.families import uses_segment_ids
from ..tasks.batching import Collator
from ..tasks.classification.texts import make_texts, predict_logits, probabilities
from .passes import computed_together
from .requests import (
    FURTHER,
    PROMISED,
    PROMISED_SPECS,
    abstaining,
    as_frame,
    best_first,
    check_parameters,
    checked_rows,
    in_force,
    is_within,
    least_confidence,
    refuse,
)
from .runtime import fetch
from .shared_bases import base_of

MAX_TEXT = 200_000
MAX_ROWS = 256
MAX_CHARACTERS = 4_000_000
MAX_LABELS = 100
"""Characters of a text, rows and characters of a request, labels for a text: more could run into the server's time-out."""

PARAMETERS: dict[str, Any] = {"top_k": 1, **PROMISED}
"""What a request may leave out, or give as null."""

EXAMPLE_PARAMETERS = {"top_k": 1}

ASKED = {"text": MAX_TEXT}
"""The columns of a request and the most characters in each."""

ASKED_PAIR = ASKED | {"text_pair": MAX_TEXT}
"""The same for a model of pairs of texts."""

ANSWER = {"label": DataType.string, "score": DataType.double}

INPUTS = {
    # Not string: of that MLflow makes "None" of null and "5" of 5 before `predict` can refuse them.
    pairs: Schema([ColSpec(AnyType(), name) for name in asked])
    for pairs, asked in ((False, ASKED), (True, ASKED_PAIR))
}
"""Whether texts come in pairs → what a request holds."""

GIVEN = [(name, kind, name in ANSWER) for name, kind in (ANSWER | FURTHER).items()]
"""(name, type, whether it is always there) of the fields of a label."""

ALTERNATIVES = ColSpec(Array(Object([Property(*each) for each in GIVEN])), "alternatives", required=False)


def signature(request: Collection[str]) -> ModelSignature:
    """MLflow's signature of a model that is asked with such a request. request: its columns."""
    return ModelSignature(
        inputs=INPUTS["text_pair" in request],
        outputs=Schema(
            [*(ColSpec(kind, name, required=always) for name, kind, always in GIVEN), ALTERNATIVES]
        ),
        params=ParamSchema([ParamSpec("top_k", DataType.long, PARAMETERS["top_k"]), *PROMISED_SPECS]),
    )


SIGNATURE = signature(ASKED)


class Classifier:
    """A saved model ready to classify, without MLflow and without the hub."""

    def __init__(self, bundle: str | Path, base: str | Path | None = None):
        base = Path(base) if base else None
        # Kept, so that other adapters find it for as long as this one uses it.
        self.shared = base_of(Path(bundle), base)
        model, self.tokenizer, self.info = load_bundle(Path(bundle), base, merge=True, shared=self.shared)
        self.collator = Collator(self.tokenizer.pad_token_id)
        self.model = computed_together(model, self.tokenizer.pad_token_id, self.info.runtime)
        # A fast tokenizer keeps its truncation as state, which concurrent requests would overwrite.
        self.tokenizing = self.shared.tokenizing if self.shared else threading.Lock()

    @property
    def asked(self) -> dict[str, int]:
        """The columns of a request and the most characters in each."""
        return ASKED_PAIR if self.info.settings.get("pairs") else ASKED

    @property
    def names(self) -> list[str]:
        """The labels, in the order of the logits."""
        return list(self.info.settings["labels"])

    def logits(self, records: Sequence[Mapping[str, str]]) -> np.ndarray:
        """(records, labels) logits of records with the columns of `asked`, in order; at least one record."""
        with self.tokenizing:
            texts = make_texts(
                self.tokenizer,
                records,
                max_length=self.info.settings["max_length"],
                segment_ids=uses_segment_ids(self.model.config, self.tokenizer),
                names=self.names,
            )
        return predict_logits(self.model, texts, self.collator)[1]

    def classify(
        self, records: Sequence[Mapping[str, str]], top_k: int = 1, max_error: float | None = None
    ) -> list[list[dict[str, Any]]]:
        """For each record its labels, likeliest first: at most `top_k` dicts of `label`, `score`, its probability, and
        `raw_score`, the same before calibration. With `max_error` also `abstained`: where it is true the one label is empty.

        Of a text that is longer than the model's `max_length` in tokens, the beginning decides; of a pair that is longer,
        tokens are taken off the longer text.
        """
        if not records:
            return []
        least, logits = least_confidence(self.info.settings, max_error), self.logits(records)
        calibrated = probabilities(logits / self.info.settings.get("temperature", 1.0))
        found = []
        for each in zip(calibrated.tolist(), probabilities(logits).tolist(), strict=True):
            named = sorted(zip(self.names, *each, strict=True), key=lambda x: -x[2])
            labels = [{"label": label, "score": p, "raw_score": raw} for label, p, raw in named[:top_k]]
            found.append(abstaining(labels, least, {"label": ""}))
        return found


class Classification(PythonModel):
    """MLflow's face of `Classifier`: checks requests, answers in rows."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the saved model; an adapter's shared base is fetched from the store where it is not inside."""
        self.classifier = Classifier(*fetch(context))
        self.asked = self.classifier.asked

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Rows of `label` and `score`; with `top_k` above 1 also `alternatives`, a list for each row."""
        records = checked_rows(model_input, in_force(self.asked), rows=MAX_ROWS, characters=MAX_CHARACTERS)
        params = params or {}
        check_parameters(params, list(PARAMETERS))
        top_k = checked_top_k(params)
        found = self.classifier.classify(records, top_k, params.get("max_error"))
        rows = [best_first(labels, top_k, bool(params.get("raw_scores"))) for labels in found]
        return as_frame(rows, model_input, list(ANSWER))


def is_taken(record: Mapping[str, str]) -> bool:
    """Whether a served model takes this text or pair, which evaluation may have classified all the same."""
    return is_within(record, ASKED_PAIR if "text_pair" in record else ASKED)


def checked_top_k(params: Mapping[str, Any]) -> int:
    """How many labels a request asks for; refused where that is out of bounds."""
    top_k = PARAMETERS["top_k"] if params.get("top_k") is None else params["top_k"]
    if not 1 <= top_k <= MAX_LABELS:
        refuse(f"top_k is {top_k}; choose 1 to {MAX_LABELS}.")
    return int(top_k)


def best_answers(bundle: Path, records: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """The likeliest label of each record by a saved model with its base inside, without going through MLflow."""
    return [labels[0] for labels in Classifier(bundle).classify(records)]


MODEL = Classification
