"""`load`: a stored model, ready to be asked."""

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..errors import UserError, first_line
from ..tasks.table import task_of

if TYPE_CHECKING:
    import pandas as pd

    from .fitting import Run

_RUN_ID = re.compile(r"[0-9a-f]{32}")

_SIDE_BY_SIDE = "serving.side_by_side"
"""The module that serves a folder of several adapters on one base."""


class Model:
    """A model that answers questions about texts, or classifies texts, exactly as its server does.

    name: what it was loaded by. predict: (DataFrame of requests, parameters) → DataFrame of answers. asked: the columns of
    a request. parameters: the names of the parameters that it takes.
    """

    def __init__(
        self,
        name: str,
        predict: Callable[["pd.DataFrame", dict[str, Any]], "pd.DataFrame"],
        asked: Sequence[str],
        parameters: Sequence[str],
    ):
        self.name, self._predict = name, predict
        self.asked, self.parameters = tuple(asked), tuple(parameters)

    def predict(
        self, rows: "pd.DataFrame | Sequence[Mapping[str, str]] | Mapping[str, str]", **parameters: Any
    ) -> "pd.DataFrame":
        """A row of the answer for each request, with an index like the requests'.

        rows: a DataFrame, a list of rows or one row, with the columns of `asked`. parameters: those of a request, such as
        `top_k`; None stands for the model's own value. UserError says what is wrong with a row or a parameter.
        """
        import pandas as pd

        from ..tracking import store

        if unknown := parameters.keys() - set(self.parameters):
            raise UserError(
                f"{min(unknown)!r} is not a parameter of {self.name}: there are {', '.join(self.parameters)}."
            )
        frame = pd.DataFrame([rows] if isinstance(rows, Mapping) else rows)
        given = {name: value for name, value in parameters.items() if value is not None}
        try:
            return self._predict(frame, given)
        except store.ERRORS as error:
            raise UserError(getattr(error, "message", str(error))) from None

    def answer(self, question: str, context: str, **parameters: Any) -> dict[str, Any]:
        """The answer to a question about a text: `answer` ("" for no answer), `score`, its probability among the candidates,
        `start` and `end` in characters of the context; with `top_k` above 1 also `alternatives`, a list of such; with
        `max_error` also `abstained`, with `raw_scores` also `raw_score`."""
        return self._one({"question": question, "context": context}, parameters)

    def classify(self, text: str, text_pair: str | None = None, **parameters: Any) -> dict[str, Any]:
        """The `label` of a text, or of a pair of texts, and its `score`, a probability.

        A model with any number of labels gives `labels` and `scores`, two lists. With `top_k` above 1 there are also
        `alternatives`, the other labels.
        """
        return self._one({"text": text} | ({} if text_pair is None else {"text_pair": text_pair}), parameters)

    def _one(self, row: dict[str, str], parameters: dict[str, Any]) -> dict[str, Any]:
        if set(row) != set(self.asked):
            raise UserError(f"{self.name} takes {' and '.join(self.asked)}: call {self._call}.")
        found: dict[str, Any] = self.predict(row, **parameters).iloc[0].to_dict()
        return found

    @property
    def _call(self) -> str:
        return f"{'classify' if 'text' in self.asked else 'answer'}({', '.join(self.asked)})"

    def __repr__(self) -> str:
        return f"<{self.name}: .{self._call}, .predict(rows); parameters: {', '.join(self.parameters)}>"


def load(model: "str | PathLike[str] | Run") -> Model:
    """The model of a URI (models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID/model), of a run or its id, or of a folder.

    From the store, each file is held against what was recorded when the model was logged, and the model answers with the code
    that is stored with it. A folder, such as one that `mlflow artifacts download` wrote, has no record beside it: none of its
    code is run, and this library's own opens its weights. UserError if there is no such model, or a file was changed.
    """
    from .fitting import Run

    if isinstance(model, Run):
        return _stored(model.model_uri)
    name = str(model)
    if not isinstance(model, str) or Path(name).is_dir():
        return _folder(Path(name))
    return _stored(f"runs:/{name}/model" if _RUN_ID.fullmatch(name) else name)


def _stored(uri: str) -> Model:
    from ..serving import stored_code
    from ..tracking import store

    store.configure()
    try:
        loaded = stored_code.load(uri)
    except (*store.ERRORS, OSError, ValueError) as error:
        raise UserError(f"{uri} cannot be loaded: {first_line(error)}") from None
    signature = loaded.metadata.signature
    parameters = [spec.name for spec in signature.params or ()]
    return Model(
        uri,
        lambda frame, given: loaded.predict(frame, params=given),
        signature.inputs.input_names(),
        parameters,
    )


def _folder(folder: Path) -> Model:
    from ..models.bundles import BUNDLE, REFERENCE, read_bundle

    bundle = next(
        (
            place
            for place in (folder, folder / "artifacts" / "bundle")
            if (place / BUNDLE).is_file() or (place / "adapters").is_dir()
        ),
        None,
    )
    if bundle is None:
        raise UserError(
            f"{folder} holds no saved model of this project: name the folder of a model, models:/NAME@ALIAS or a run's id."
        )
    if (bundle / REFERENCE).is_file() and not (bundle / "base").is_dir():
        raise UserError(
            f"{folder} holds an adapter without its base: load it from the store (runs:/ID/model), or save a registered version, "
            "which holds both."
        )
    several = not (bundle / BUNDLE).is_file()
    served = importlib.import_module(
        f"..{_SIDE_BY_SIDE if several else task_of(read_bundle(bundle).task).served}", __package__
    )
    opened = served.MODEL()
    opened.load_context(SimpleNamespace(artifacts={"bundle": str(bundle)}, model_config=None))
    parameters = [spec.name for spec in served.SIGNATURE.params or ()]
    return Model(
        str(folder),
        lambda frame, given: opened.predict(None, frame, given),
        tuple(getattr(opened, "asked", served.ASKED)),
        parameters,
    )
