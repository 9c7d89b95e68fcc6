"""The model card of an exported folder: README.md with the metadata that the Hugging Face hub reads."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..errors import UserError, first_line
from ..reports.text_tables import to_markdown
from ..scoring.names import LABELS
from ..scratch import scratch
from ..tasks.interface import Task
from ..tasks.table import task_of
from ..tracking import runs, store
from ..training.assessment import INPUTS
from ..training.fingerprint import OF_HUB
from . import public_base
from .source import Stored

T = TypeVar("T")

LIBRARIES = {"merged": "transformers", "adapter": "peft", "onnx": "onnx"}
PIPELINES = {
    "QuestionAnswering": "question-answering",
    "SequenceClassification": "text-classification",
    "CausalLM": "text-generation",
    "Seq2SeqLM": "text2text-generation",
}
"""Head → the hub's name of what its models do."""

PACKAGED = {"embedded": "sentence-transformers/all-MiniLM-L6-v2"}
"""Packaged bases → the model of the hub that they are."""

MOST_SLICES = 30
_PLAIN = re.compile(r"[\w.+-]{1,40}")
"""Values of settings that name no place of a machine."""
_NOT_OF_TRAINING = {
    "data", "data_dir", "experiment_name", "logging_steps", "model_checkpoint", "output_dir", "parent_run", "progress",
    "report_to", "resume", "run_name", "save_steps", "skip_finished", "task", "teacher",
}  # fmt: skip
_DATA, _SLICES, _CONFIDENCE = "data_record.json", "error_analysis/slices.csv", "confidence/abstention.md"


@dataclass(frozen=True)
class Recorded:
    """What the store holds of the run that a model came from; all of it empty where it has no such run."""

    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    """Its parameters."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """The record of its data."""
    slices: pd.DataFrame | None = None
    abstention: str = ""
    """What was certified on validation, in Markdown."""
    from_hub: bool = False
    """Whether training took its base from the hub."""
    missing: str = ""
    """Why some or all of it is empty."""


def recorded(stored: Stored) -> Recorded:
    """What is known of a model's run. UserError where a model of the store has a run that the store does not give."""
    if stored.run_id is None:
        return Recorded(missing="its files name no run")
    try:
        # A folder may have come from another machine: no store is made for it here.
        if not stored.of_store and not store.exists():
            return Recorded(missing="there is no store here")
        store.configure()
        found = runs.recorded(stored.run_id)
    except UserError as error:
        if stored.of_store:
            raise
        return Recorded(missing=first_line(error).rstrip("."))
    if found is None:
        return Recorded(
            missing=f"the store {store.without_secrets(store.tracking_uri())} has no run {stored.run_id}"
        )
    with scratch() as folder:
        missing = []
        names = [_DATA, INPUTS, _SLICES.partition("/")[0], _CONFIDENCE.partition("/")[0]]
        try:
            runs.download(stored.run_id, names, folder)
        except UserError as error:
            missing.append(first_line(error).rstrip("."))

        def read(name: str, reader: Callable[[Path], T], otherwise: T) -> T:
            try:
                return reader(folder / name) if (folder / name).is_file() else otherwise
            except ValueError as error:
                missing.append(f"{name} of run {stored.run_id} is damaged ({first_line(error).rstrip('.')})")
                return otherwise

        nothing: dict[str, Any] = {}
        decided = read(INPUTS, _json, nothing)
        return Recorded(
            found["tags"],
            found["metrics"],
            found["params"],
            read(_DATA, _json, nothing),
            read(_SLICES, pd.read_csv, None),
            read(_CONFIDENCE, lambda file: file.read_text(encoding="utf-8"), ""),
            str(_part(decided, "content").get("checkpoint")).startswith(OF_HUB),
            "; ".join(missing),
        )


def _json(file: Path) -> dict[str, Any]:
    content = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("it holds no names")
    return content


def _part(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = content.get(name)
    return found if isinstance(found, dict) else {}


def write(
    folder: Path,
    stored: Stored,
    format: str,
    sample: str,
    about: Recorded,
    *,
    name: str,
    licence: str | None = None,
    checked: str = "",
    hub_base: Mapping[str, Any] | None = None,
) -> None:
    """Write README.md. sample: the program that asks the folder. name: of the model. checked: what its check found. hub_base: of
    an adapter that names its base on the hub."""
    task, base = task_of(stored.info.task), base_model(stored, about, hub_base)
    data = ModelCardData(
        base_model=base,
        datasets=[about.data["hub"]["repository"]]
        if (about.data.get("hub") or {}).get("repository")
        else None,
        language=_language(about.tags.get("data_language")),
        license=licence,
        library_name=LIBRARIES[format],
        pipeline_tag=PIPELINES[stored.info.head],
        metrics=list(task.metrics) if about.metrics else None,
        tags=sorted({format, stored.info.model_type, _slug(stored.info.technique), "bert-fine-tuning-suite"}),
        model_name=name,
        eval_results=_results(task, about, PIPELINES[stored.info.head]) or None,
    )
    if not data.eval_results:
        data.pop("model_name", None)
    parts = [
        f"# {name}",
        _introduction(stored, format, about, base),
        f"## Use\n\n```python\n{sample}```\n\n{checked}".rstrip(),
        _scores(task, about),
        _slices(task, about),
        f"## When it is unsure\n\n{about.abstention.strip()}" if about.abstention else "",
        _limits(stored, format, about),
        _training(stored, about),
    ]
    text = "\n\n".join(part for part in parts if part)
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n").save(folder / "README.md")


def base_model(stored: Stored, about: Recorded, hub_base: Mapping[str, Any] | None) -> str | None:
    """The base's name on the hub, where the run's record or the base itself confirms it.

    None for a folder or a model of the store, which mean nothing elsewhere. hub_base: of an adapter that names it.
    """
    checkpoint = stored.info.checkpoint
    if checkpoint in PACKAGED:
        return PACKAGED[checkpoint]
    if not public_base.named_so(stored):
        return None
    # Where all weights were trained, only the record tells what they started from.
    confirmed = hub_base or about.from_hub or public_base.commit(stored)
    return checkpoint if confirmed else None


def _language(tag: str | None) -> str | None:
    """The hub takes codes of two or three letters."""
    code = (tag or "").partition("-")[0].lower()
    return code if re.fullmatch(r"[a-z]{2,3}", code) else None


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _data_name(about: Recorded) -> str:
    """The data's name without the folders of this machine."""
    return Path(about.tags.get("data_name", "data")).name


def _interval(about: Recorded, metric: str) -> tuple[float, float, float] | None:
    found = [about.metrics.get(f"test_{metric}{end}") for end in ("", "_low", "_high")]
    return None if None in found else tuple(found)  # type: ignore[return-value]


def _results(task: Task, about: Recorded, pipeline: str) -> list[EvalResult]:
    made = []
    for metric in (*task.metrics, *task.further_scores):
        if (found := _interval(about, metric)) is not None:
            value, low, high = found
            made.append(
                EvalResult(
                    task_type=pipeline,
                    dataset_type=(about.data.get("hub") or {}).get("repository") or _slug(_data_name(about)),
                    dataset_name=_data_name(about),
                    dataset_split="test",
                    metric_type=metric,
                    metric_value=round(value, 2),
                    metric_name=f"{LABELS.get(metric, metric)} (95% interval {low:.1f} to {high:.1f})",
                )
            )
    return made


def _introduction(stored: Stored, format: str, about: Recorded, base: str | None) -> str:
    task = task_of(stored.info.task)
    base = base or f"A {stored.info.model_type} model"
    how = {
        "merged": "What was trained is merged into the weights: a plain model of transformers.",
        "adapter": "An adapter in PEFT's format, which its base needs beside it.",
        "onnx": "For ONNX Runtime: `model.onnx` computes in 32 bits, `model_quantized.onnx` has weights of 8 bits.",
    }[format]
    on = f" on {_data_name(about)}" if about.tags else ""
    return f"{task.description} {base}, fine-tuned{on} by {stored.info.technique}. {how}"


def _scores(task: Task, about: Recorded) -> str:
    rows = [
        [LABELS.get(metric, metric), f"{found[0]:.1f}", f"{found[1]:.1f} to {found[2]:.1f}"]
        for metric in (*task.metrics, *task.further_scores)
        if (found := _interval(about, metric)) is not None
    ]
    if not rows:
        return ""
    examples = int(about.metrics.get("test_examples", 0))
    table = to_markdown(pd.DataFrame(rows, columns=["score", "value", "95% interval"]))
    note = f"On {examples:,} test {task.unit}, scored once. Intervals: bootstrap over the test {task.unit}."
    errors = {
        "test_ece": "Expected calibration error of the served scores",
        "test_aurc": "Area under the risk-coverage curve",
    }
    lines = [f"{name}: {about.metrics[key]:.1f}%." for key, name in errors.items() if key in about.metrics]
    return f"## Results\n\n{table}\n{' '.join([note, *lines])}"


def _slices(task: Task, about: Recorded) -> str:
    if about.slices is None or about.slices.empty:
        return ""
    shown = about.slices.head(MOST_SLICES)
    table = pd.DataFrame(
        {
            "slice": [f"{d}: {s}" for d, s in zip(shown["dimension"], shown["slice"], strict=True)],
            task.unit: [f"{n:,}" for n in shown["examples"]],
            LABELS[task.metric]: [f"{value:.1f}" for value in shown["score"]],
            "95% interval": [
                f"{low:.1f} to {high:.1f}" for low, high in zip(shown["low"], shown["high"], strict=True)
            ],
        }
    )
    return f"## Results by slice\n\n{to_markdown(table)}".rstrip()


def _limits(stored: Stored, format: str, about: Recorded) -> str:
    info, settings = stored.info, stored.info.settings
    lines = []
    if "doc_stride" in settings:
        lines.append(
            f"Contexts are read in windows of {settings['max_length']} tokens that share {settings['doc_stride']}; answers "
            f"have at most {settings['max_answer_length']} tokens."
        )
    else:
        lines.append(f"Of a text, the first {settings['max_length']} tokens count.")
    if info.checkpoint == "embedded":
        lines.append(
            "It has one segment: question and context are parted by the separator alone, and the tokenizer gives no "
            "`token_type_ids`."
        )
    if info.head == "QuestionAnswering":
        answers = (
            "It may give no answer."
            if info.has_unanswerable
            else "It always gives an answer, also where the text has none."
        )
        lines.append(answers)
    if settings.get("temperature", 1.0) != 1.0:
        lines.append(
            f"Its raw probabilities are calibrated by a temperature of {settings['temperature']:.4g}: logits are divided by it."
        )
    if format == "onnx":
        lines.append("`model_quantized.onnx` was not scored: 8 bits change answers.")
    counts = about.data.get("counts") or {}
    if counts:
        sizes = ", ".join(
            f"{split} {n:,}" for split, each in counts.items() if (n := max(each.values(), default=0))
        )
        lines.append(f"Data: {_data_name(about)} ({about.tags.get('data_version', '')}): {sizes}.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _training(stored: Stored, about: Recorded) -> str:
    kept = {
        name: value
        for name, value in sorted(about.settings.items())
        if name not in _NOT_OF_TRAINING and value not in ("None", "") and _PLAIN.fullmatch(value)
    }
    origin = [f"{name} {version(name)}" for name in ("transformers", "peft", "torch")]
    commit = about.tags.get("git_commit", "unknown")
    traced = [f"run `{stored.run_id}`"] * bool(stored.run_id) + [f"commit `{commit}`"] * (commit != "unknown")
    line = f"Exported with {', '.join(origin)}{'; ' if traced else ''}{', '.join(traced)}."
    if not kept:
        return f"## Training\n\n{line}"
    table = to_markdown(pd.DataFrame([*kept.items()], columns=["setting", "value"]))
    return f"## Training\n\n{table}\n{line}"
