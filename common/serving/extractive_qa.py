"""Question answering as it is served: questions and contexts in, answers out, decoded exactly as evaluation decodes."""

import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array, Object, Property

from ..models.bundles import SharedBase, load_bundle
from ..models.families import uses_segment_ids
from ..tasks.batching import Collator
from ..tasks.extractive_qa.prediction import decode_spans, predict_spans
from ..tasks.extractive_qa.spans import Prediction, tempered
from ..tasks.extractive_qa.windows import make_windows
from .passes import computed_together
from .question_requests import ANSWER, INPUTS, check_length, checked_rows, context_limit
from .question_requests import ASKED as ASKED
from .question_requests import CONFIG as CONFIG
from .question_requests import is_taken as is_taken
from .requests import (
    FURTHER,
    PROMISED,
    PROMISED_SPECS,
    abstaining,
    as_frame,
    best_first,
    check_parameters,
    least_confidence,
    refuse,
)
from .runtime import fetch
from .shared_bases import base_of

MAX_ANSWERS = 100
"""Answers to a question: more could run into the server's time-out."""

PARAMETERS: dict[str, Any] = {
    "top_k": 1,
    "max_answer_length": None,
    "null_threshold": None,
    "null_odds": False,
    **PROMISED,
}
"""What a request may leave out, or give as null; None stands for the model's own."""

EXAMPLE_PARAMETERS = {"top_k": 1}

GIVEN = [(name, kind, name in ANSWER) for name, kind in (ANSWER | FURTHER).items()]
"""(name, type, whether it is always there) of the fields of an answer."""

ALTERNATIVES = ColSpec(Array(Object([Property(*each) for each in GIVEN])), "alternatives", required=False)

SIGNATURE = ModelSignature(
    inputs=INPUTS,
    outputs=Schema(
        [
            *(ColSpec(kind, name, required=always) for name, kind, always in GIVEN),
            ALTERNATIVES,
            ColSpec(DataType.double, "null_odds", required=False),
        ]
    ),
    params=ParamSchema(
        [
            ParamSpec("top_k", DataType.long, PARAMETERS["top_k"]),
            ParamSpec("max_answer_length", DataType.long, PARAMETERS["max_answer_length"]),
            ParamSpec("null_threshold", DataType.double, PARAMETERS["null_threshold"]),
            *PROMISED_SPECS,
            ParamSpec("null_odds", DataType.boolean, PARAMETERS["null_odds"]),
        ]
    ),
)


class Answerer:
    """A saved model ready to answer, without MLflow and without the hub."""

    def __init__(self, bundle: str | Path, base: str | Path | None = None, shared: SharedBase | None = None):
        base = Path(base) if base else None
        # Kept, so that other adapters find it for as long as this one uses it.
        self.shared = shared or base_of(Path(bundle), base)
        model, self.tokenizer, self.info = load_bundle(Path(bundle), base, merge=True, shared=self.shared)
        self.collator = Collator(self.tokenizer.pad_token_id)
        self.model = computed_together(model, self.tokenizer.pad_token_id, self.info.runtime)
        # A fast tokenizer keeps its truncation as state, which concurrent requests would overwrite.
        self.tokenizing = self.shared.tokenizing if self.shared else threading.Lock()

    def answer(
        self,
        records: Sequence[Mapping[str, str]],
        top_k: int = 1,
        max_answer_length: int | None = None,
        null_threshold: float | None = None,
        max_error: float | None = None,
        null_odds: bool = False,
    ) -> list[list[dict]]:
        """For each record (`question`, `context`) its answers, best first: at most `top_k` dicts.

        Each has `answer`, `score` (its probability among the candidates), `raw_score` (the same before calibration), `start`
        and `end` (characters of the context, end exclusive; -1 with an empty answer: there is none). With `max_error` also
        `abstained`: where it is true the one answer is empty, and the scores are those of the answer that was held back.
        null_odds: whether the first one also has `null_odds`, the logarithm of how much likelier "no answer" is than the best
        answer (a difference of two sums of logits).
        """
        if not records:
            return []
        settings = self.info.settings
        least = least_confidence(settings, max_error)
        if least is not None and top_k > settings["n_best"]:
            refuse(f"top_k is {top_k}; with max_error it is {settings['n_best']} at most.")
        examples = [{**record, "id": str(i)} for i, record in enumerate(records)]
        with self.tokenizing:
            windows = make_windows(
                self.tokenizer,
                examples,
                max_length=settings["max_length"],
                doc_stride=settings["doc_stride"],
                segment_ids=uses_segment_ids(self.model.config, self.tokenizer),
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
        temperature = settings.get("temperature", 1.0)
        ranked = [_ranked(prediction, temperature)[:top_k] for prediction in predictions]
        answers = [abstaining(each, least, {"answer": "", "start": -1, "end": -1}) for each in ranked]
        if null_odds:
            for each, prediction in zip(answers, predictions, strict=True):
                each[0]["null_odds"] = prediction.null_score - prediction.score
        return answers


def _ranked(prediction: Prediction, temperature: float) -> list[dict]:
    """The given answer, then the other candidates by score."""
    calibrated = tempered(prediction.n_best, temperature)
    ranked = [
        {
            "answer": entry["text"],
            "score": score,
            "raw_score": entry["probability"],
            "start": entry["start"],
            "end": entry["end"],
        }
        for entry, score in zip(prediction.n_best, calibrated, strict=True)
    ]
    # Only a text without any span, where "no answer" cannot win, has no candidate.
    given = [each for each in ranked if (each["start"], each["end"]) == (prediction.start, prediction.end)]
    others = [each for each in ranked if each not in given]
    return [*given, *others] or [{"answer": "", "score": 0.0, "raw_score": 0.0, "start": -1, "end": -1}]


class QuestionAnswering(PythonModel):
    """MLflow's face of `Answerer`: checks requests, answers in rows."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the saved model; an adapter's shared base is fetched from the store where it is not inside."""
        self.max_context = context_limit(context.model_config)
        self.answerer = Answerer(*fetch(context))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Rows of `answer`, `score`, `start`, `end`; with `top_k` above 1 also `alternatives`, a list for each row, and with
        `null_odds` a column of that name."""
        records = checked_rows(model_input, self.max_context)
        params = checked_parameters(params or {})
        rows = as_rows(self.answerer, records, params)
        return as_frame(rows, model_input, list(ANSWER))


def as_rows(answerer: Answerer, records: Sequence[Mapping[str, str]], params: Mapping) -> list[dict]:
    """The best answer of each question; with `top_k` above 1 also `alternatives`, the others.

    params: what `checked_parameters` gave.
    """
    asked = {name: value for name, value in params.items() if name != "raw_scores"}
    answers = answerer.answer(records, **asked)
    return [best_first(ranked, params["top_k"], params["raw_scores"]) for ranked in answers]


def checked_parameters(params: Mapping) -> dict:
    """The parameters of a request with defaults filled in; one that is out of bounds is refused with the reason."""
    check_parameters(params, list(PARAMETERS))
    given = {
        name: default if params.get(name) is None else params[name] for name, default in PARAMETERS.items()
    }
    if not 1 <= given["top_k"] <= MAX_ANSWERS:
        refuse(f"top_k is {given['top_k']}; choose 1 to {MAX_ANSWERS}.")
    check_length(given["max_answer_length"])
    if given["null_threshold"] is not None and math.isnan(given["null_threshold"]):
        refuse("null_threshold must be a number.")
    own = [name for name in ("max_answer_length", "null_threshold") if given[name] is not None]
    if given["max_error"] is not None and own:
        refuse(f"max_error is promised for the model's own {own[0]}: leave one of the two out.")
    return given


def best_answers(bundle: Path, records: Sequence[Mapping[str, str]]) -> list[dict]:
    """The best answer to each record by a saved model with its base inside, without going through MLflow."""
    return [ranked[0] for ranked in Answerer(bundle).answer(records)]


MODEL = QuestionAnswering
