"""One base and many adapters as they are served: a request names a technique, or asks all of them side by side.

The saved model is a folder with `base/` and `adapters/`, which holds a saved model without a base for each technique, in
the order of their names. The first one answers if a request names no technique. All use one copy of the base's weights, so
nothing is merged into it: an answer takes somewhat longer than from the same technique alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array, Object, Property

from ..models.bundles import load_shared_base, read_bundle
from . import extractive_qa
from .extractive_qa import ALTERNATIVES, Answerer, as_rows, checked_parameters
from .question_requests import ANSWER, checked_rows, context_limit
from .question_requests import ASKED as ASKED
from .question_requests import CONFIG as CONFIG
from .question_requests import is_taken as is_taken
from .requests import FURTHER, as_frame, check_parameters, refuse
from .runtime import fetch

ALL = "all"

EXAMPLE_PARAMETERS = {"top_k": 1}

_ANSWER = {"technique": DataType.string} | ANSWER
_FURTHER = [Property(name, kind, required=False) for name, kind in FURTHER.items()]

SIGNATURE = ModelSignature(
    inputs=extractive_qa.SIGNATURE.inputs,
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
    params=ParamSchema([*extractive_qa.SIGNATURE.params, ParamSpec("technique", DataType.string, None)]),
)


class SideBySide:
    """A saved model of many adapters ready to answer, without MLflow and without the hub."""

    def __init__(self, bundle: str | Path):
        folders = sorted((Path(bundle) / "adapters").iterdir())
        shared = load_shared_base(Path(bundle) / "base", read_bundle(folders[0]))
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
        technique "all" rows of `answers`, a list with one such row for each technique."""
        records = checked_rows(model_input, self.max_context)
        check_parameters(params, [spec.name for spec in SIGNATURE.params])
        technique = self._technique((params or {}).get("technique"))
        params = checked_parameters({n: v for n, v in (params or {}).items() if n != "technique"})
        found = {
            name: [{"technique": name, **row} for row in as_rows(answerer, records, params)]
            for name, answerer in self.models.chosen(technique).items()
        }
        if technique == ALL:
            rows = [{"answers": list(each)} for each in zip(*found.values(), strict=True)]
            return as_frame(rows, model_input, ["answers"])
        (rows,) = found.values()
        return as_frame(rows, model_input, list(_ANSWER))

    def _technique(self, asked: str | None) -> str | None:
        if asked is None:
            return None
        names = {name.casefold(): name for name in (*self.models.answerers, ALL)}
        if asked.casefold() not in names:
            refuse(f"technique is {asked[:50]!r}; choose one of {', '.join(names.values())}.")
        return names[asked.casefold()]


MODEL = SideBySideAnswering
