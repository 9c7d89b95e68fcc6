"""The served model: questions and contexts in, answers out, decoded exactly as evaluation decodes.

What MLflow stores is code, never a pickle: a copy of this package under a name made of its content (two versions in
one process must each answer with their own code), a two-line file that loads it, and the saved model as an artifact.
"""

import getpass
import hashlib
import json
import math
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import mlflow
import pandas as pd
from filelock import FileLock
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType, Array, Object, Property

from .families import uses_segment_ids
from .inference import decode_spans, predict_spans
from .models import load_bundle, read_bundle
from .preprocessing import Collator, make_windows

SHARED_BASES = "shared-bases"
"""The experiment that holds the bases which adapters refer to."""

REFERENCE = "base.json"

MAX_QUESTION = 2_000
MAX_CONTEXT = 200_000
MAX_ROWS = 256
MAX_CHARACTERS = 400_000
MAX_ANSWERS = 100
MAX_ANSWER_LENGTH = 500
"""Characters of a question and of a context, rows and characters of a request, answers to a question, tokens of an
answer: more could run into the server's time-out."""

PARAMETERS = {"top_k": 1, "max_answer_length": None, "null_threshold": None}
"""What a request may leave out, or give as null; None stands for the model's own."""

ASKED = ("question", "context")

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
        ]
    ),
    params=ParamSchema(
        [
            ParamSpec("top_k", DataType.long, PARAMETERS["top_k"]),
            ParamSpec("max_answer_length", DataType.long, PARAMETERS["max_answer_length"]),
            ParamSpec("null_threshold", DataType.double, PARAMETERS["null_threshold"]),
        ]
    ),
)

REQUIREMENTS = (
    "mlflow",
    "torch",
    "transformers",
    "peft",
    "safetensors",
    "numpy",
    "pandas",
    "tqdm",
    "filelock",
)


class Answerer:
    """A saved model ready to answer, without MLflow and without the hub."""

    def __init__(self, bundle: str | Path, base: str | Path | None = None):
        self.model, self.tokenizer, self.info = load_bundle(Path(bundle), base and Path(base), merge=True)
        self.collator = Collator(self.tokenizer.pad_token_id)
        # A fast tokenizer keeps its truncation as state, which two requests at once would take from each other.
        self.tokenizing = threading.Lock()

    def answer(
        self,
        records: Sequence[Mapping[str, str]],
        top_k: int = 1,
        max_answer_length: int | None = None,
        null_threshold: float | None = None,
    ) -> list[list[dict]]:
        """For each record (`question`, `context`) its answers, best first: at most `top_k` dicts.

        Each has `answer`, `score` (its probability among the candidates), `start` and `end` (characters of the
        context, end exclusive; -1 with an empty answer: there is none).
        """
        if not records:
            return []
        info = self.info
        examples = [{**record, "id": str(i)} for i, record in enumerate(records)]
        with self.tokenizing:
            windows = make_windows(
                self.tokenizer,
                examples,
                max_length=info.max_length,
                doc_stride=info.doc_stride,
                segment_ids=uses_segment_ids(self.model.config),
            )
        n_best = max(info.n_best, top_k)
        spans = predict_spans(
            self.model,
            windows,
            self.collator,
            n_best=n_best,
            max_answer_length=max_answer_length or info.max_answer_length,
        )
        if info.version == "v2.0":
            null_threshold = info.null_threshold if null_threshold is None else null_threshold
        predictions = decode_spans(spans, windows, examples, n_best=n_best, null_threshold=null_threshold)
        return [_ranked(prediction)[:top_k] for prediction in predictions]


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
        bundle = Path(context.artifacts["bundle"])
        reference = read_reference(bundle)
        self.answerer = Answerer(bundle, reference and mlflow.artifacts.download_artifacts(reference["uri"]))

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        """Rows of `answer`, `score`, `start`, `end`; with `top_k` above 1 also `alternatives`, a list for each row."""
        records = _checked_rows(model_input)
        params = _checked_parameters(params or {})
        answers = self.answerer.answer(records, **params)
        rows = [ranked[0] for ranked in answers]
        if params["top_k"] > 1:
            rows = [{**row, "alternatives": ranked[1:]} for row, ranked in zip(rows, answers, strict=True)]
        return pd.DataFrame(rows, columns=None if rows else list(ANSWER))


def _checked_rows(model_input: pd.DataFrame) -> list[dict]:
    records = model_input[list(ASKED)].to_dict("records")
    if len(records) == 1 and all(isinstance(value, list) for value in records[0].values()):
        # What MLflow makes of {"inputs": {"question": [...], "context": [...]}}.
        columns = records[0].values()
        if len(set(map(len, columns))) > 1:
            _refuse(
                f"{' and '.join(f'{len(values)} {name}s' for name, values in records[0].items())}: one of each, please."
            )
        records = [dict(zip(ASKED, values, strict=True)) for values in zip(*columns, strict=True)]
    if len(records) > MAX_ROWS:
        _refuse(f"{len(records)} rows in one request; at most {MAX_ROWS} are answered.")
    for i, record in enumerate(records):
        for name, limit in (("question", MAX_QUESTION), ("context", MAX_CONTEXT)):
            text = record[name]
            if not isinstance(text, str):
                _refuse(
                    f"row {i}: {name} must be a string, not {'null' if text is None else type(text).__name__}."
                )
            if not text.strip():
                _refuse(f"row {i}: {name} is empty.")
            if len(text) > limit:
                _refuse(f"row {i}: {name} has {len(text)} characters; at most {limit} are answered.")
            try:
                text.encode()
            except UnicodeEncodeError:
                _refuse(f"row {i}: {name} holds a lone surrogate, which is no character.")
    characters = sum(len(record["context"]) for record in records)
    if characters > MAX_CHARACTERS:
        _refuse(
            f"the contexts of the request have {characters} characters together; at most {MAX_CHARACTERS} are answered."
        )
    return records


def is_answered(question: str, context: str) -> bool:
    """Whether a served model takes this question, which evaluation may have answered all the same."""
    within = len(question) <= MAX_QUESTION and len(context) <= MAX_CONTEXT
    return within and bool(question.strip() and context.strip())


def _checked_parameters(params: Mapping) -> dict:
    given = {
        name: default if params.get(name) is None else params[name] for name, default in PARAMETERS.items()
    }
    if not 1 <= given["top_k"] <= MAX_ANSWERS:
        _refuse(f"top_k is {given['top_k']}; choose 1 to {MAX_ANSWERS}.")
    length = given["max_answer_length"]
    if length is not None and not 1 <= length <= MAX_ANSWER_LENGTH:
        _refuse(f"max_answer_length is {length}; choose 1 to {MAX_ANSWER_LENGTH} tokens.")
    if given["null_threshold"] is not None and math.isnan(given["null_threshold"]):
        _refuse("null_threshold must be a number.")
    return given


class Refusal(MlflowException):
    """A bad request and the reason, which stays as it is: MLflow's server would put the whole request before it."""

    def __init__(self, reason: str):
        self.reason = reason
        super().__init__(reason, INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        return self.reason

    @message.setter
    def message(self, _):
        pass


def _refuse(reason: str):
    raise Refusal(reason)


def log_model(
    run, bundle: Path, base: Path | None, example: Mapping[str, str], metrics: Mapping[str, float]
) -> str:
    """Log a saved model into a run; returns "models:/<id>".

    base: the folder of an adapter's base. It is kept once in the store, by fingerprint, and the model refers to it.
    """
    if base is not None:
        fingerprint = read_bundle(bundle).base_fingerprint
        reference = {"uri": shared_base(base, fingerprint), "fingerprint": fingerprint}
        (bundle / REFERENCE).write_text(json.dumps(reference) + "\n")
    info = log_bundle(bundle, example, run_id=run.id, name="model")
    run.log_metrics(metrics, model_id=info.model_id)
    return info.model_uri


def read_reference(bundle: Path) -> dict | None:
    """`uri` and `fingerprint` of the base that a saved model refers to, None where it holds its own."""
    file = Path(bundle) / REFERENCE
    return json.loads(file.read_text()) if file.is_file() else None


def shared_base(base: Path, fingerprint: str) -> str:
    """The store's one copy of a base, logged if it is not there yet; returns "runs:/<id>/base"."""
    from . import tracking

    experiment = tracking.experiment(SHARED_BASES)
    client = mlflow.MlflowClient()
    with lock(f"base-{fingerprint[:16]}"):
        found = client.search_runs(
            [experiment],
            f"tags.base_fingerprint = '{fingerprint}' and attributes.status = 'FINISHED'",
            max_results=1,
        )
        if found:
            return f"runs:/{found[0].info.run_id}/base"
        run = client.create_run(
            experiment, run_name=f"base {fingerprint[:12]}", tags={"base_fingerprint": fingerprint}
        )
        client.log_artifacts(run.info.run_id, str(base), "base")
        client.set_terminated(run.info.run_id)
        return f"runs:/{run.info.run_id}/base"


def lock(name: str) -> FileLock:
    """Held by one process of this user at a time, whatever store it writes to."""
    return FileLock(Path(tempfile.gettempdir()) / f"bert-squad-qa-{getpass.getuser()}-{name}.lock")


def log_bundle(bundle: Path, example: Mapping[str, str], *, run_id: str, name: str):
    """Log a saved model into a run, finished or not, with its code, signature, example and pinned requirements.

    Returns MLflow's ModelInfo. The run's status and times stay as they are.
    """
    client = mlflow.MlflowClient()
    run = client.get_run(run_id)
    # Made here, as MLflow would put the model of a run that is not active into the default experiment.
    logged = client.create_logged_model(
        run.info.experiment_id, name=name, source_run_id=run_id, params=run.data.params
    )
    with tempfile.TemporaryDirectory() as scratch:
        package = copy_of_package(Path(scratch))
        loader = Path(scratch) / "model.py"
        loader.write_text(
            f"from mlflow.models import set_model\n\nfrom {package.name}.serving import QuestionAnswering\n\n"
            "set_model(QuestionAnswering())\n"
        )
        # MLflow runs the loader once to check it, before the code is where the logged model will have it.
        sys.path.insert(0, scratch)
        try:
            # `mlflow.pyfunc.log_model` is this call without `run_id`.
            return Model.log(
                artifact_path=None,
                name=name,
                flavor=mlflow.pyfunc,
                run_id=run_id,
                model_id=logged.model_id,
                python_model=str(loader),
                code_paths=[str(package)],
                artifacts={"bundle": str(bundle)},
                signature=SIGNATURE,
                input_example=(pd.DataFrame([example]), {"top_k": 1}),
                pip_requirements=[f"{needed}=={version(needed).split('+')[0]}" for needed in REQUIREMENTS],
            )
        finally:
            sys.path.remove(scratch)


def copy_of_package(folder: Path) -> Path:
    """The modules that serving needs, as a package named by their content: `suite_<sha256, 12 digits>`."""
    files = sorted(_needed_modules())
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    package = folder / f"suite_{digest.hexdigest()[:12]}"
    package.mkdir()
    for file in files:
        shutil.copy(file, package / file.name)
    return package


def _needed_modules() -> set[Path]:
    """This file and what it imports from the package, directly or not; imports within functions serve logging only."""
    here = Path(__file__)
    found, left = {here.with_name("__init__.py")}, [here]
    while left:
        file = left.pop()
        if file not in found:
            found.add(file)
            names = re.findall(r"^from \.(\w+) import", file.read_text(encoding="utf-8"), re.MULTILINE)
            left += [here.with_name(f"{name}.py") for name in names]
    return found
