"""Generative question answering as it is served: questions and contexts in, written answers out, as evaluation writes them."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from ..errors import UserError
from ..graphemes import cuts
from ..models.bundles import load_bundle
from ..models.families import family_of, usable_positions
from ..tasks.generative_qa.writing import Collator, choose, make_prompts, tempered, write
from .question_requests import ANSWER, INPUTS, check_length, checked_rows, context_limit
from .question_requests import ASKED as ASKED
from .question_requests import CONFIG as CONFIG
from .question_requests import is_taken as is_taken
from .requests import (
    FURTHER,
    PROMISED_SPECS,
    abstaining,
    as_frame,
    best_first,
    check_parameters,
    least_confidence,
    refuse,
)
from .runtime import fetch, share_cores

EXAMPLE_PARAMETERS = {"max_answer_length": 8}

SIGNATURE = ModelSignature(
    inputs=INPUTS,
    outputs=Schema(
        [
            *(ColSpec(kind, name) for name, kind in ANSWER.items()),
            *(ColSpec(kind, name, required=False) for name, kind in FURTHER.items()),
        ]
    ),
    params=ParamSchema([ParamSpec("max_answer_length", DataType.long, None), *PROMISED_SPECS]),
)


class Writer:
    """A saved model ready to answer, without MLflow and without the hub."""

    def __init__(self, bundle: str | Path, base: str | Path | None = None):
        self.model, self.tokenizer, self.info = load_bundle(
            Path(bundle), Path(base) if base else None, merge=True
        )
        share_cores(self.model)
        self.kind = family_of(self.info.model_type).kind
        self.collator = Collator(self.tokenizer, self.kind)
        # A fast tokenizer keeps its truncation as state, which concurrent requests would overwrite.
        self.tokenizing = threading.Lock()

    @property
    def longest(self) -> int | None:
        """The longest answer, in tokens, that fits behind a prompt; None if positions set no limit."""
        room = usable_positions(self.model.config) if self.kind == "decoder" else None
        return None if room is None else room - self.info.settings["max_length"] - 1

    def answer(
        self,
        records: Sequence[Mapping[str, str]],
        max_answer_length: int | None = None,
        max_error: float | None = None,
    ) -> list[dict]:
        """For each record (`question`, `context`) a dict of `answer`, `score`, `raw_score`, `start` and `end`.

        The score is the calibrated probability that the written text is right, `raw_score` the probability of the text
        itself; an empty answer means that there is none. start, end: characters of the context, end exclusive, where the
        answer occurs in it exactly once; otherwise -1. With `max_error` also `abstained`: where it is true the answer is
        empty, and the scores are those of the answer that was held back. UserError if a question is too long for the model.
        """
        if not records:
            return []
        settings = self.info.settings
        least = least_confidence(settings, max_error)
        longest = max_answer_length or settings["max_answer_length"]
        if self.longest is not None and longest > self.longest:
            raise UserError(
                f"max_answer_length is {longest}; this model has room for {self.longest} tokens at most."
            )
        examples = [{**record, "id": f"in row {i}"} for i, record in enumerate(records)]
        with self.tokenizing:
            prompts = make_prompts(
                self.tokenizer,
                examples,
                kind=self.kind,
                max_length=settings["max_length"],
                doc_stride=settings["doc_stride"],
                max_answer_length=settings["max_answer_length"],
            )
        written = write(self.model, prompts, self.collator, max_answer_length=longest)
        answers = choose(written, prompts.example_index, [example["id"] for example in examples])
        temperature = settings.get("temperature", 1.0)
        found = [
            {
                "answer": answer.text,
                "score": tempered(answer.score, temperature),
                "raw_score": answer.score,
                **place_of(answer.text, record["context"]),
            }
            for answer, record in zip(answers, records, strict=True)
        ]
        return [abstaining([each], least, {"answer": "", "start": -1, "end": -1})[0] for each in found]


def place_of(answer: str, context: str) -> dict[str, int]:
    """Start and end of the answer's only occurrence in the context, else -1.

    An occurrence consists of whole characters as readers see them: "Cafe" does not occur where an accent follows.
    """
    bounds = cuts(context)
    found: list[tuple[int, int]] = []
    start = context.find(answer) if answer else -1
    while start >= 0 and len(found) < 2:
        end = start + len(answer)
        if bounds is None or (bounds[0][start] == start and bounds[0][end] == end):
            found.append((start, end))
        start = context.find(answer, start + 1)
    start, end = found[0] if len(found) == 1 else (-1, -1)
    return {"start": start, "end": end}


class GenerativeAnswering(PythonModel):
    """MLflow's face of `Writer`: checks requests, answers in rows."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the saved model; an adapter's shared base is fetched from the store where it is not inside."""
        self.max_context = context_limit(context.model_config)
        self.writer = Writer(*fetch(context))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Rows of `answer`, `score`, `start`, `end`."""
        records = checked_rows(model_input, self.max_context)
        check_parameters(params, [spec.name for spec in SIGNATURE.params])
        params = params or {}
        length, max_error = params.get("max_answer_length"), params.get("max_error")
        check_length(length)
        if length is not None and max_error is not None:
            refuse("max_error is promised for the model's own max_answer_length: leave one of the two out.")
        try:
            answers = self.writer.answer(records, length, max_error)
        except UserError as error:
            refuse(str(error))
        rows = [best_first([answer], 1, bool(params.get("raw_scores"))) for answer in answers]
        return as_frame(rows, model_input, list(ANSWER))


def best_answers(bundle: Path, records: Sequence[Mapping[str, str]]) -> list[dict]:
    """The answer to each record by a saved model with its base inside, without going through MLflow."""
    return Writer(bundle).answer(records)


MODEL = GenerativeAnswering
