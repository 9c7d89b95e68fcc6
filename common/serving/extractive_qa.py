"""Question answering as it is served: questions and contexts in, answers out, decoded exactly as evaluation decodes."""

import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType, Array, Object, Property

from ..models.bundles import SharedBase, load_bundle
from ..models.families import uses_segment_ids
from ..tasks.batching import Collator
from ..tasks.extractive_qa.prediction import decode_spans, predict_spans
from ..tasks.extractive_qa.windows import make_windows
from .question_requests import ASKED, check_length, checked_rows, context_limit
from .question_requests import CONFIG as CONFIG
from .question_requests import is_taken as is_taken
from .requests import as_frame, check_parameters, refuse
from .runtime import fetch, share_cores

MAX_ANSWERS = 100
"""Answers to a question: more could run into the server's time-out."""

PARAMETERS = {"top_k": 1, "max_answer_length": None, "null_threshold": None, "null_odds": False}
"""What a request may leave out, or give as null; None stands for the model's own."""

EXAMPLE_PARAMETERS = {"top_k": 1}

ANSWER = {
    "answer": DataType.string,
    "score": DataType.double,
    "start": DataType.long,
    "end": DataType.long,
}

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
            ColSpec(DataType.double, "null_odds", required=False),
        ]
    ),
    params=ParamSchema(
        [
            ParamSpec("top_k", DataType.long, PARAMETERS["top_k"]),
            ParamSpec("max_answer_length", DataType.long, PARAMETERS["max_answer_length"]),
            ParamSpec("null_threshold", DataType.double, PARAMETERS["null_threshold"]),
            ParamSpec("null_odds", DataType.boolean, PARAMETERS["null_odds"]),
        ]
    ),
)


class Answerer:
    """A saved model ready to answer, without MLflow and without the hub."""

    def __init__(self, bundle: str | Path, base: str | Path | None = None, shared: SharedBase | None = None):
        self.model, self.tokenizer, self.info = load_bundle(
            Path(bundle), base and Path(base), merge=True, shared=shared
        )
        share_cores(self.model)
        self.collator = Collator(self.tokenizer.pad_token_id)
        # A fast tokenizer keeps its truncation as state, which two requests at once would take from each other.
        self.tokenizing = shared.tokenizing if shared else threading.Lock()

    def answer(
        self,
        records: Sequence[Mapping[str, str]],
        top_k: int = 1,
        max_answer_length: int | None = None,
        null_threshold: float | None = None,
        null_odds: bool = False,
    ) -> list[list[dict]]:
        """For each record (`question`, `context`) its answers, best first: at most `top_k` dicts.

        Each has `answer`, `score` (its probability among the candidates), `start` and `end` (characters of the
        context, end exclusive; -1 with an empty answer: there is none). null_odds: whether the first one also has `null_odds`,
        the logarithm of how much likelier "no answer" is than the best answer (a difference of two sums of logits).
        """
        if not records:
            return []
        settings = self.info.settings
        examples = [{**record, "id": str(i)} for i, record in enumerate(records)]
        with self.tokenizing:
            windows = make_windows(
                self.tokenizer,
                examples,
                max_length=settings["max_length"],
                doc_stride=settings["doc_stride"],
                segment_ids=uses_segment_ids(self.model.config),
            )
        n_best = max(settings["n_best"], top_k)
        spans = predict_spans(
            self.model,
            windows,
            self.collator,
            n_best=n_best,
            max_answer_length=max_answer_length or settings["max_answer_length"],
        )
        if self.info.has_unanswerable:
            null_threshold = settings["null_threshold"] if null_threshold is None else null_threshold
        predictions = decode_spans(spans, windows, examples, n_best=n_best, null_threshold=null_threshold)
        answers = [_ranked(prediction)[:top_k] for prediction in predictions]
        if null_odds:
            for ranked, prediction in zip(answers, predictions, strict=True):
                ranked[0]["null_odds"] = prediction.null_score - prediction.score
        return answers


def _ranked(prediction) -> list[dict]:
    """The given answer, then the other candidates by score."""
    given = {name: getattr(prediction, name) for name in ("text", "start", "end", "probability")}
    others = [
        entry
        for entry in prediction.n_best
        if (entry["start"], entry["end"]) != (given["start"], given["end"])
    ]
    return [
        {"answer": e["text"], "score": e["probability"], "start": e["start"], "end": e["end"]}
        for e in (given, *others)
    ]


class QuestionAnswering(PythonModel):
    """MLflow's face of `Answerer`: checks requests, answers in rows."""

    def load_context(self, context):
        """Open the saved model; an adapter's shared base is fetched from the store where it is not inside."""
        self.max_context = context_limit(context.model_config)
        self.answerer = Answerer(*fetch(context))

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        """Rows of `answer`, `score`, `start`, `end`; with `top_k` above 1 also `alternatives`, a list for each row, and with
        `null_odds` a column of that name."""
        records = checked_rows(model_input, self.max_context)
        params = checked_parameters(params or {})
        rows = as_rows(self.answerer.answer(records, **params), params["top_k"])
        return as_frame(rows, model_input, list(ANSWER))


def as_rows(answers: Sequence[Sequence[dict]], top_k: int) -> list[dict]:
    """The best answer of each question; with `top_k` above 1 also `alternatives`, the others."""
    if top_k == 1:
        return [ranked[0] for ranked in answers]
    return [{**ranked[0], "alternatives": ranked[1:]} for ranked in answers]


def checked_parameters(params: Mapping) -> dict:
    """What was asked for, or its default; a parameter that is out of bounds is refused with its reason."""
    check_parameters(params, list(PARAMETERS))
    given = {
        name: default if params.get(name) is None else params[name] for name, default in PARAMETERS.items()
    }
    if not 1 <= given["top_k"] <= MAX_ANSWERS:
        refuse(f"top_k is {given['top_k']}; choose 1 to {MAX_ANSWERS}.")
    check_length(given["max_answer_length"])
    if given["null_threshold"] is not None and math.isnan(given["null_threshold"]):
        refuse("null_threshold must be a number.")
    return given


def best_answers(bundle: Path, records: Sequence[Mapping[str, str]]) -> list[dict]:
    """The best answer to each record by a saved model with its base inside, without MLflow between."""
    return [ranked[0] for ranked in Answerer(bundle).answer(records)]


MODEL = QuestionAnswering
