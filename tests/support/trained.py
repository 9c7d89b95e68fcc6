"""Finished runs with their logged models, made without training: a tiny BERT with a random but decided head."""

import json
from contextlib import contextmanager
from dataclasses import asdict

import pytest
import torch

from common.data import questions
from common.models import base as models
from common.models import bundles, saving, trainable
from common.models.families import FAMILIES, uses_segment_ids
from common.registry import checking, fresh_process
from common.serving import model_logging
from common.tasks.batching import Collator
from common.tasks.extractive_qa.prediction import decode_spans, predict_spans
from common.tasks.extractive_qa.windows import make_windows
from common.tracking import runs
from common.training.settings import RunArgs
from tests.scripts.conftest import squad_json
from tests.support.questions import EXAMPLES
from tests.support.techniques import TECHNIQUES
from tests.support.techniques import technique as technique_of
from tests.support.texts import make_texts

LENGTHS = {"max_length": 96, "doc_stride": 16}


@contextmanager
def checked_here():
    """Candidates are loaded and asked in this process: a fresh one takes seconds, and has tests of its own."""

    def ask(stored, asked):
        try:
            return json.loads(
                json.dumps(fresh_process.ask(str(stored), asked), default=lambda value: value.item())
            )
        except Exception as error:
            raise checking.Unloadable(f"{type(error).__name__}: {error}") from None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checking, "in_fresh_process", ask)
        patch.setattr(fresh_process, "LEAST", 2)
        yield


def prepare_data(folder, version="v2.0"):
    """A prepared data folder whose test questions are EXAMPLES; returns its record."""
    chosen = [e for e in EXAMPLES if version == "v2.0" or e["answers"]["text"]]
    for part in ("train", "test"):
        examples = [e | {"id": f"{part}-{e['id']}", "title": f"{part} {e['title']}"} for e in chosen]
        (folder / f"{part}.json").write_text(squad_json(examples, version))
    return questions.prepare_files(
        folder / "train.json", folder / "test.json", folder / "data", validation_share=0.3
    )


def make_model(tiny, technique: str = "lora", seed: int = 0):
    """(model, tokenizer, checkpoint): nothing is left at zero, and candidates do not lie close to each other."""
    checkpoint = models.resolve_checkpoint(tiny("bert"))
    torch.manual_seed(seed)
    model, tokenizer = models.load_base(checkpoint)
    model = models.apply(technique_of(technique).method(FAMILIES["bert"]), model, FAMILIES["bert"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                scale = 1.0 if "qa_outputs" in name else 0.05
                parameter.add_(scale * torch.randn(parameter.shape))
    return model.eval(), tokenizer, checkpoint


def save(folder, tiny, technique: str = "lora", version: str = "v2.0", seed: int = 0):
    """(bundle, base or None, model, tokenizer, info) of `make_model`, saved as training saves."""
    model, tokenizer, checkpoint = make_model(tiny, technique, seed)
    base, print_ = None, ""
    if technique != "standard":
        base = folder / "base"
        print_ = saving.save_base(checkpoint, base)
    info = bundles.BundleInfo(
        TECHNIQUES[technique].name, "bert", tiny("bert"), print_, "extractive-qa", "QuestionAnswering",
        {"version": version, **LENGTHS, "max_answer_length": 30, "n_best": 20, "null_threshold": 1.5 if version == "v2.0" else 0.0},
    )  # fmt: skip
    method = technique_of(technique).method(FAMILIES["bert"])
    saving.save_bundle(folder / "bundle", info, model, tokenizer, method)
    return folder / "bundle", base, model, tokenizer, info


THRESHOLDS = [0.5, 0.25]
"""Of the labels of a classifier with any number of labels."""


def middle(values: torch.Tensor) -> torch.Tensor:
    """Between the two values in the middle of an even number of them, of each column."""
    ordered = values.sort(0).values
    return (ordered[len(values) // 2 - 1] + ordered[len(values) // 2]) / 2


def save_classifier(folder, tiny, seed: int = 0, multi_label: bool = False, pairs: bool = False):
    """(bundle, base, model, tokenizer, info) of a LoRA BERT whose head tells texts apart, saved as training saves.

    multi_label: of a task with any number of labels; the thresholds are THRESHOLDS. pairs: of texts in pairs, asked with
    themselves backwards.
    """
    checkpoint = models.resolve_checkpoint(tiny("bert"))
    names = ("negative", "positive")
    config = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    if multi_label:
        config["problem_type"] = "multi_label_classification"
    torch.manual_seed(seed)
    model, tokenizer = models.load_base(checkpoint, "SequenceClassification", **config)
    family = FAMILIES["bert"]
    model = models.apply(TECHNIQUES["lora"]().method(family), model, family, "SequenceClassification")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_((2.0 if "pooler" in name else 0.3) * torch.randn(parameter.shape))
        model.eval()
        # Each label for half of some texts, whatever the weights drawn.
        asked = [e["text"] for e in make_texts(12)]
        others = [t[::-1] for t in asked] if pairs else None
        cut = {"truncation": True, "max_length": LENGTHS["max_length"]}
        asked = tokenizer(asked, others, **cut, return_tensors="pt", padding=True)
        logits = model(**{name: asked[name] for name in tokenizer.model_input_names}).logits
        (bias,) = (
            p
            for name, p in model.named_parameters()
            if name.endswith("classifier.modules_to_save.default.bias")
        )
        if multi_label:
            bias += torch.tensor(THRESHOLDS).logit() - middle(logits)
        else:
            bias[1] -= middle(logits[:, 1] - logits[:, 0])
    print_ = saving.save_base(checkpoint, folder / "base", "SequenceClassification", **config)
    task, settings = "classification", {"max_length": LENGTHS["max_length"], "labels": list(names)}
    if multi_label:
        task, settings = "multi-label-classification", settings | {"thresholds": THRESHOLDS}
    if pairs:
        settings |= {"pairs": True}
    info = bundles.BundleInfo("LoRA", "bert", tiny("bert"), print_, task, "SequenceClassification", settings)
    saving.save_bundle(folder / "bundle", info, model, tokenizer)
    return folder / "bundle", folder / "base", model, tokenizer, info


def predict(model, tokenizer, info, examples):
    """What evaluation answers, before anything is merged, saved or served."""
    windows = make_windows(tokenizer, examples, **LENGTHS, segment_ids=uses_segment_ids(model.config))
    spans = predict_spans(
        model,
        windows,
        Collator(tokenizer.pad_token_id),
        n_best=info.settings["n_best"],
        max_answer_length=info.settings["max_answer_length"],
    )
    threshold = info.settings["null_threshold"] if info.settings["version"] == "v2.0" else None
    return decode_spans(spans, windows, examples, n_best=info.settings["n_best"], null_threshold=threshold)


def log_run(
    folder,
    tiny,
    record,
    examples,
    *,
    experiment,
    technique="lora",
    validation_f1=50.0,
    seed=0,
    test_f1=0.0,
    language=None,
    **params,
):
    """A FINISHED run as training leaves it; returns its id. record: of the data that lies in folder / "data".

    test_f1: what every test example scores, 0 to 1, whatever the model answers. language: of the data.
    """
    scratch = folder / f"{technique}-{seed}"
    scratch.mkdir(exist_ok=True)
    bundle, base, model, tokenizer, info = save(scratch, tiny, technique, record.version, seed)
    tags = {
        "technique": TECHNIQUES[technique].name,
        "family": "bert",
        "task": "extractive-qa",
        "checkpoint": "tiny",
        "data_name": record.name,
        "data_version": record.version,
        "data_fingerprint": record.fingerprint,
        "run_fingerprint": f"{experiment}-{technique}-{seed}-{validation_f1}",
        "base_fingerprint": info.base_fingerprint,
    } | ({"data_language": language} if language else {})
    with runs.start(experiment, technique, tags) as run:
        run.log_params(
            {"data_dir": folder / "data", "precision": "fp32", "max_validation_samples": None} | params
        )
        args = RunArgs(model_checkpoint=tiny("bert"), data_dir=str(folder / "data"), seed=seed, **LENGTHS)
        run.log_dict(asdict(TECHNIQUES[technique]()) | asdict(args), "config.yaml")
        run.log_metrics(trainable.counts(model))
        run.log_data(record.to_json(), "testing")
        report = {
            "test_f1": 40.0, "test_f1_low": 35.0, "test_f1_high": 45.0, "test_exact_match": 30.0, "test_examples": 8.0,
            "best_validation_f1": validation_f1, "best_validation_exact_match": 30.0,
        }  # fmt: skip
        example = {name: examples[0][name] for name in ("question", "context")}
        model_logging.log_model(run, bundle, base, example, report)
        rows = []
        for p, e in zip(predict(model, tokenizer, info, examples), examples, strict=True):
            row = asdict(p) | {"question": e["question"], "prediction": p.text}
            row |= {"f1": test_f1, "exact_match": float(test_f1 == 1)}
            rows.append(row | {"n_best": list(p.n_best)})
        run.log_dict(rows, "predictions/test.json")
    return run.id
