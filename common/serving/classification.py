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
from .requests import as_frame, check_parameters, checked_rows, in_force, is_within, refuse
from .runtime import fetch, share_cores

MAX_TEXT = 200_000
MAX_ROWS = 256
MAX_CHARACTERS = 4_000_000
MAX_LABELS = 100
"""Characters of a text, rows and characters of a request, labels for a text: more could run into the server's time-out."""

PARAMETERS = {"top_k": 1}
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
            *(ColSpec(kind, name) for name, kind in ANSWER.items()),
            ColSpec(
                Array(Object([Property(name, kind) for name, kind in ANSWER.items()])),
                "alternatives",
                required=False,
            ),
        ]
    ),
    params=ParamSchema([ParamSpec("top_k", DataType.long, PARAMETERS["top_k"])]),
)


class Classifier:
    """A saved model ready to classify, without MLflow and without the hub."""

    def __init__(self, bundle: str | Path, base: str | Path | None = None):
        self.model, self.tokenizer, self.info = load_bundle(Path(bundle), base and Path(base), merge=True)
        share_cores(self.model)
        self.collator = Collator(self.tokenizer.pad_token_id)
        # A fast tokenizer keeps its truncation as state, which two requests at once would take from each other.
        self.tokenizing = threading.Lock()

    def classify(self, records: Sequence[Mapping[str, str]], top_k: int = 1) -> list[list[dict]]:
        """For each record (`text`) its labels, likeliest first: at most `top_k` dicts of `label` and `score`, its
        probability. Of a text that is longer than the model's `max_length` in tokens, the beginning decides."""
        if not records:
            return []
        with self.tokenizing:
            texts = make_texts(
                self.tokenizer,
                records,
                max_length=self.info.settings["max_length"],
                segment_ids=uses_segment_ids(self.model.config),
                names=self.info.settings["labels"],
            )
        _, logits = predict_logits(self.model, texts, self.collator)
        ranked = []
        for each in probabilities(logits).tolist():
            named = zip(texts.names, each, strict=True)
            ranked.append([{"label": label, "score": p} for label, p in sorted(named, key=lambda x: -x[1])])
        return [labels[:top_k] for labels in ranked]


class Classification(PythonModel):
    """MLflow's face of `Classifier`: checks requests, answers in rows."""

    def load_context(self, context):
        """Open the saved model; an adapter's shared base is fetched from the store where it is not inside."""
        self.classifier = Classifier(*fetch(context))

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        """Rows of `label` and `score`; with `top_k` above 1 also `alternatives`, a list for each row."""
        records = checked_rows(model_input, in_force(ASKED), rows=MAX_ROWS, characters=MAX_CHARACTERS)
        top_k = _checked_top_k(params or {})
        ranked = self.classifier.classify(records, top_k)
        rows = [labels[0] for labels in ranked]
        if top_k > 1:
            rows = [{**row, "alternatives": labels[1:]} for row, labels in zip(rows, ranked, strict=True)]
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
