"""Any model, ready to be asked: of the store, of a folder, or anybody's of the hub; all answer as their server does."""

import hashlib
import importlib
import json
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..errors import UserError, first_line
from ..paths import command
from ..tasks.interface import Task
from ..tasks.table import TASKS, task_of

if TYPE_CHECKING:
    import pandas as pd

_SIDE_BY_SIDE = "serving.side_by_side"
"""The module that serves a folder of several adapters on one base."""


@dataclass(frozen=True)
class Origin:
    """Where a model comes from, as the store and its files have it."""

    content: str
    """What decides its answers: the logged model, which is checked against its record, or a digest of files or a commit."""
    model_id: str | None = None
    """Of the logged model; None for what is not in the store."""
    run_id: str | None = None
    """Of the run that logged it."""
    always_answers: bool = False
    """Whether nothing has chosen when it gives no answer: it was not trained by this project."""


class Model:
    """A model that answers questions about texts, or classifies texts, exactly as its server does.

    name: what it was loaded by. predict: (DataFrame of requests, parameters) → DataFrame of answers. asked: the columns of
    a request. given: the columns of an answer. parameters: the names of the parameters that it takes. origin: where it comes
    from. served: what answers, where this library's code opened the weights; None where a stored model's own did.
    """

    def __init__(
        self,
        name: str,
        predict: "Callable[[pd.DataFrame, dict[str, Any]], pd.DataFrame]",
        asked: Sequence[str],
        given: Sequence[str],
        parameters: Sequence[str],
        origin: Origin,
        served: Any = None,
    ):
        self.name, self._predict, self.origin, self.served = name, predict, origin, served
        self.asked, self.given, self.parameters = tuple(asked), tuple(given), tuple(parameters)

    @property
    def task(self) -> Task:
        """A task whose rules its answers are scored by: all tasks with questions have the same ones."""
        questions = "question" in self.asked
        return next(
            task
            for task in TASKS.values()
            if (task.data == "qa") == questions and task.multi_label == ("labels" in self.given)
        )

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
        if not isinstance(rows, pd.DataFrame):
            # As objects: pandas' own type for text raises at what is no text, before the model says what is wrong.
            rows = pd.DataFrame([rows] if isinstance(rows, Mapping) else rows, dtype=object)
        given = {name: value for name, value in parameters.items() if value is not None}
        try:
            return self._predict(rows, given)
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


def load(name: str | None, *, pairs: bool = False, adapter: str | None = None) -> Model:
    """The model of a URI (models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID/model), of a run's id, of a folder, or of the hub.

    From the store, each file is held against what was recorded when the model was logged, and the model answers with the code
    that is stored with it. Of a folder, saved by this project or by transformers, and of a model of the hub no code is run:
    this library's own opens the weights. pairs: whether a classifier that was not trained here takes pairs of texts, which
    its files do not say. adapter: folder of anybody's adapter, which is merged into the model as its base; without a name,
    into the base that its config names. UserError if there is no such model, a file was changed, or the model neither
    answers questions nor classifies texts.
    """
    if name is None or adapter is not None:
        model = _foreign(name, pairs, adapter)
    else:
        model = _loaded(name, pairs)
    if pairs and "text_pair" not in model.asked:
        raise UserError(f"--pairs: {model.name} takes {' and '.join(model.asked)}; leave --pairs out.")
    return model


def _loaded(name: str, pairs: bool) -> Model:
    from ..models.base import is_hub_id
    from ..serving import stored_models

    if uri := stored_models.uri_of(name):
        return stored(uri)

    folder = Path(name).expanduser()
    if folder.is_dir():
        if bundle := stored_models.in_folder(folder):
            return _saved(name, bundle)
        if not (folder / "config.json").is_file():
            raise UserError(
                f"{folder} holds no saved model of this project, and none of transformers (config.json): name the folder of a "
                "model, models:/NAME@ALIAS, a run's id or a model of the hub."
            )
    elif not is_hub_id(name):
        raise UserError(f"{name} holds no saved model of this project: there is no such folder.")
    return _foreign(name, pairs)


def load_here(name: str) -> Model:
    """What `load` gives, but a model of the store too is opened by this library's code: it may be asked what the code that is
    stored with it does not know. Its files are held against their record all the same."""
    from ..scratch import own_folder
    from ..serving import stored_models
    from ..tracking import store

    uri = stored_models.uri_of(name)
    if uri is None:
        return load(name)
    folder, release = own_folder()
    try:
        logged, place = stored_models.copied(uri, folder)
        model = opened(uri, place / "artifacts" / "bundle", f"logged model {logged.model_id}")
    except (*store.ERRORS, OSError, ValueError) as error:
        release()
        raise _unloadable(uri, error) from None
    except BaseException:
        release()
        raise
    weakref.finalize(model, release)
    return model


def _unloadable(uri: str, error: BaseException) -> UserError:
    return UserError(
        f"{uri} cannot be loaded: {first_line(error).rstrip('.')}. Register a model with {command('register_best.py')}, or name "
        "another one."
    )


def stored(uri: str) -> Model:
    """The model of a URI of the store."""
    from ..serving import stored_code
    from ..tracking import store

    store.configure()
    try:
        logged = stored_code.logged_model_of(uri)
        # By its id: an alias may move meanwhile.
        loaded = stored_code.load(f"models:/{logged.model_id}", called=uri)
    except (*store.ERRORS, OSError, ValueError) as error:
        raise _unloadable(uri, error) from None
    to_accelerator(loaded.unwrap_python_model())
    signature = loaded.metadata.signature
    parameters = [spec.name for spec in signature.params or ()]
    return Model(
        uri,
        lambda frame, given: loaded.predict(frame, params=given),
        signature.inputs.required_input_names(),
        signature.outputs.input_names(),
        parameters,
        Origin(f"logged model {logged.model_id}", logged.model_id, logged.source_run_id),
    )


def to_accelerator(answering: Any) -> None:
    """Move the networks of a served model to the GPU where there is one. ONNX Runtime's stay where they are."""
    import torch

    if not torch.cuda.is_available():
        return
    for part in vars(answering).values():
        # One network, or one for each of several adapters.
        for holder in (part, *getattr(part, "answerers", {}).values()):
            network = getattr(holder, "model", None)
            if isinstance(network, torch.nn.Module) and not hasattr(network, "sessions"):
                network.to("cuda")


def _saved(name: str, bundle: Path) -> Model:
    from ..models.bundles import REFERENCE, hashes

    if (bundle / REFERENCE).is_file() and not (bundle / "base").is_dir():
        raise UserError(
            f"{name} holds an adapter without its base: load it from the store (runs:/ID/model), or save a registered version, "
            "which holds both."
        )
    digest = hashlib.sha256(json.dumps(hashes(bundle), sort_keys=True).encode())
    return opened(name, bundle, f"files {digest.hexdigest()}")


def _foreign(name: str | None, pairs: bool, adapter: str | None = None) -> Model:
    from ..scratch import own_folder
    from . import foreign

    folder, release = own_folder()
    try:
        content = foreign.save(name, folder, pairs=pairs, adapter=adapter)
        called = f"{adapter} on {name}" if adapter and name else adapter or name
        model = opened(str(called), folder, content, always_answers=True)
    except BaseException:
        release()
        raise
    weakref.finalize(model, release)
    return model


def opened(name: str, bundle: Path, content: str, *, always_answers: bool = False) -> Model:
    """A saved model, opened by this library's code. content: what its weights are."""
    from ..models.bundles import BUNDLE, read_bundle
    from ..training import fingerprint

    several = not (bundle / BUNDLE).is_file()
    module = _SIDE_BY_SIDE if several else task_of(read_bundle(bundle).task).served
    served = importlib.import_module(f"..{module}", __package__)
    model = served.MODEL()
    model.load_context(SimpleNamespace(artifacts={"bundle": str(bundle)}, model_config=None))
    to_accelerator(model)
    specs = {spec.name: spec for spec in served.SIGNATURE.params or ()}

    def predict(frame: "pd.DataFrame", given: dict[str, Any]) -> "pd.DataFrame":
        # What MLflow does for a logged model.
        checked = {name: specs[name].validate_param_spec(value, specs[name]) for name, value in given.items()}
        return model.predict(None, frame, checked)

    return Model(
        name,
        predict,
        getattr(model, "asked", served.ASKED),
        served.SIGNATURE.outputs.input_names(),
        list(specs),
        Origin(f"{content}, code {fingerprint.code('serving')}", always_answers=always_answers),
        model,
    )
