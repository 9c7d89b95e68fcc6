"""Classification of texts: one label for each."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...files import write_json
from ...models.families import uses_segment_ids
from ...reports import run_figures
from ..batching import Collator
from ..table import Work
from . import confusion, texts


@dataclass(frozen=True)
class Prediction:
    """What a model makes of a text: the class, and the probability of every class."""

    label: int
    names: tuple[str, ...]
    probabilities: np.ndarray


def features(tokenizer, config, examples, args) -> texts.Texts:
    """The beginning of each text; what is longer than `max_length` is cut off."""
    return texts.make_texts(
        tokenizer,
        examples,
        max_length=args.max_length,
        segment_ids=uses_segment_ids(config),
        names=[config.id2label[i] for i in range(config.num_labels)],
    )


def label_loss(model, batch, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy summed over a batch; labels: (batch,)."""
    return torch.nn.functional.cross_entropy(model(**batch).logits.float(), labels, reduction="sum")


def outputs(model, features, collator, args, part, progress):
    return texts.predict_logits(model, features, collator, part=part, progress=progress)


def predictions(outputs, features, examples, args, decision) -> list[Prediction]:
    _, logits = outputs
    each = zip(logits.argmax(axis=1).tolist(), texts.probabilities(logits), strict=True)
    return [Prediction(label, features.names, p) for label, p in each]


def score(predictions, examples, version):
    """Accuracy and F1 in percent, the latter with its interval; 0 or 1 for each example."""
    counts = matrix(predictions, examples)
    low, high = confusion.f1_interval(counts)
    figures = {
        "accuracy": confusion.accuracy(counts),
        "f1": confusion.f1(counts),
        "f1_low": low,
        "f1_high": high,
    }
    right = [float(p.label == e["label"]) for p, e in zip(predictions, examples, strict=True)]
    return {name: 100 * float(value) for name, value in figures.items()}, {"accuracy": np.array(right)}


def matrix(predictions, examples) -> np.ndarray:
    """(classes, classes) counts; rows are the labels, columns the predictions."""
    labels, found = [e["label"] for e in examples], [p.label for p in predictions]
    return confusion.confusion_matrix(labels, found, len(predictions[0].names))


def row(prediction, example) -> dict:
    names = prediction.names
    return {
        "prediction": names[prediction.label],
        "label": names[example["label"]],
        "probability": float(prediction.probabilities[prediction.label]),
        "probabilities": dict(zip(names, prediction.probabilities.tolist(), strict=True)),
    }


def request(example) -> dict:
    return {"text": example["text"]}


def extras(predictions, examples, folder: Path) -> None:
    """The confusion matrix as numbers and as a figure, and the predictions as arrays."""
    counts, names = matrix(predictions, examples), predictions[0].names
    write_json(
        folder / "confusion_matrix.json",
        {"labels": list(names), "rows": "label", "columns": "prediction", "counts": counts.tolist()},
    )
    run_figures.confusion_matrix(counts, names).savefig(folder / "confusion_matrix.png")
    np.savez_compressed(
        folder / "preds_and_labels.npz",
        predictions=np.array([p.label for p in predictions], dtype=np.int64),
        labels=np.array([e["label"] for e in examples], dtype=np.int64),
        probabilities=np.stack([p.probabilities for p in predictions]).astype(np.float32),
    )


WORK = Work(
    features=features,
    collator=lambda tokenizer, config: Collator(tokenizer.pad_token_id),
    loss=label_loss,
    outputs=outputs,
    join=texts.join,
    predictions=predictions,
    decide=lambda predictions, examples, version: None,
    score=score,
    row=row,
    request=request,
    extras=extras,
)
