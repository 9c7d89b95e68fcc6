"""One base and many adapters as they are served: a request or each of its rows names a technique, or all answer side by side.

The saved model is a folder with `base/` and `adapters/`, which holds a saved model without a base for each technique, in
the order of their names. The first one answers if a request names no technique. All use one copy of the base's weights, so
nothing is merged into it: an answer takes somewhat longer than from the same technique alone.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType, Array, Object, Property

from ..models.bundles import read_bundle
from . import extractive_qa
from .extractive_qa import ALTERNATIVES, Answerer, as_rows, checked_parameters
from .question_requests import ANSWER, INPUTS, checked_rows, context_limit
from .question_requests import ASKED as ASKED
from .question_requests import CONFIG as CONFIG
from .question_requests import is_taken as is_taken
from .requests import FURTHER, as_frame, check_parameters, refuse
from .runtime import fetch
from .shared_bases import shared_base

ALL = "all"
TECHNIQUE = "technique"
"""The parameter of a request, and the column of its rows, that chooses what answers."""

EXAMPLE_PARAMETERS = {"top_k": 1}

_ANSWER = {"technique": DataType.string} | ANSWER
_FURTHER = [Property(name, kind, required=False) for name, kind in FURTHER.items()]

SIGNATURE = ModelSignature(
    inputs=Schema([*INPUTS, ColSpec(AnyType(), TECHNIQUE, required=False)]),
    # A row holds one technique's answer, or the `answers` of all.
    outputs=Schema(
        [
            *(ColSpec(kind, name, required=False) for name, kind in (_ANSWER | FURTHER).items()),
            ALTERNATIVES,
            ColSpec(DataType.double, "null_odds", required=False),
            ColSpec(
                Array(
                    Object(
                        [
                            *(Property(name, kind) for name, kind in _ANSWER.items()),
                            *_FURTHER,
                            Property("alternatives", ALTERNATIVES.type, required=False),
                            Property("null_odds", DataType.double, required=False),
                        ]
                    )
                ),
                "answers",
                required=False,
            ),
        ]
    ),
    params=ParamSchema([*extractive_qa.SIGNATURE.params, ParamSpec(TECHNIQUE, DataType.string, None)]),
)


class SideBySide:
    """A saved model of many adapters ready to answer, without MLflow and without the hub."""

    def __init__(self, bundle: str | Path):
        folders = sorted((Path(bundle) / "adapters").iterdir())
        shared = shared_base(Path(bundle) / "base", read_bundle(folders[0]))
        answerers = [Answerer(folder, shared=shared) for folder in folders]
        self.answerers = {answerer.info.technique: answerer for answerer in answerers}
        """By technique, in the order of the folders."""

    def chosen(self, technique: str | None = None) -> dict[str, Answerer]:
        """Technique → what answers with it: the one that is named, all, or the first one; KeyError where there is none."""
        if technique == ALL:
            return self.answerers
        name = next(iter(self.answerers)) if technique is None else technique
        return {name: self.answerers[name]}

    def answer(
        self, records: Sequence[Mapping[str, str]], technique: str | None = None, **params: Any
    ) -> dict[str, list[list[dict]]]:
        """Technique → what its `Answerer.answer` gives, for those that are `chosen`."""
        return {name: answerer.answer(records, **params) for name, answerer in self.chosen(technique).items()}


class SideBySideAnswering(PythonModel):
    """MLflow's face of `SideBySide`: checks requests, answers in rows."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the saved model."""
        self.max_context = context_limit(context.model_config)
        self.models = SideBySide(fetch(context)[0])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Rows of `technique`, `answer`, `score`, `start`, `end` and, with `top_k` above 1, `alternatives`; for the
        technique "all" rows of `answers`, a list with one such row for each technique.

        The rows of a request may have a column `technique`, which chooses for each of them; null or an empty text stands for
        the first technique."""
        records = checked_rows(model_input.drop(columns=TECHNIQUE, errors="ignore"), self.max_context)
        check_parameters(params, [spec.name for spec in SIGNATURE.params])
        given = (params or {}).get(TECHNIQUE)
        technique = None if given is None else self._technique(given)
        params = checked_parameters({n: v for n, v in (params or {}).items() if n != TECHNIQUE})
        if TECHNIQUE in model_input:
            if technique is not None:
                refuse(
                    "technique is a parameter of the request and a column of its rows: leave one of the two out."
                )
            rows = self._each_by_its_own(
                records, self._techniques(model_input[TECHNIQUE], len(records)), params
            )
            return as_frame(rows, model_input, list(_ANSWER))
        found = {
            name: [{"technique": name, **row} for row in as_rows(answerer, records, params)]
            for name, answerer in self.models.chosen(technique).items()
        }
        if technique == ALL:
            rows = [{"answers": list(each)} for each in zip(*found.values(), strict=True)]
            return as_frame(rows, model_input, ["answers"])
        (rows,) = found.values()
        return as_frame(rows, model_input, list(_ANSWER))

    def _each_by_its_own(
        self, records: Sequence[Mapping[str, str]], techniques: Sequence[str], params: Mapping
    ) -> list[dict]:
        """The answer to each record by its own technique; those of one technique are answered together."""
        rows: dict[int, dict] = {}
        for name in dict.fromkeys(techniques):
            places = [i for i, each in enumerate(techniques) if each == name]
            answers = as_rows(self.models.answerers[name], [records[i] for i in places], params)
            rows |= {i: {TECHNIQUE: name, **row} for i, row in zip(places, answers, strict=True)}
        return [rows[i] for i in range(len(records))]

    def _techniques(self, column: pd.Series, count: int) -> list[str]:
        """The technique of each row."""
        values = list(column)
        if len(values) == 1 and isinstance(values[0], list):
            # What MLflow makes of {"inputs": {"question": [...], "technique": [...]}}.
            (values,) = values
        if len(values) != count:
            refuse(f"{count} questions and {len(values)} techniques: send one of each for every row.")
        return [self._technique_of(f"row {i}: ", value) for i, value in enumerate(values)]

    def _technique_of(self, place: str, value: object) -> str:
        # A cell that a row does not have is None in JSON, NaN in a data frame and empty in CSV.
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            return next(iter(self.models.answerers))
        if not isinstance(value, str):
            refuse(f"{place}technique must be a string, not {type(value).__name__}.")
        name = self._technique(value, place)
        if name == ALL:
            refuse(f"{place}technique is {ALL!r}, which is for whole requests: send it as a parameter.")
        return name

    def _technique(self, asked: str, place: str = "") -> str:
        names = {name.casefold(): name for name in (*self.models.answerers, ALL)}
        if asked.casefold() not in names:
            refuse(f"{place}technique is {asked[:50]!r}; choose one of {', '.join(names.values())}.")
        return names[asked.casefold()]


MODEL = SideBySideAnswering
