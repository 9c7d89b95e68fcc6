"""Classification of texts and of pairs of texts as a task: one label for each."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..interface import Answer, Decision, Example, Extras, Figures, Loss, Row, Settings, Task

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ...data.record import DataRecord
    from ...models.bundles import BundleInfo
    from ...scoring.calibration import Candidates


MOST_SLICES = 30
"""Labels that have a slice of their own, those with the most test texts."""


class Classification(Task):
    """A text in, or two, its label out."""

    name = "classification"
    data = "text"
    data_dir = "imdb_data"
    metrics: tuple[str, ...] = ("accuracy",)
    experiment = "imdb-sentiment"
    registered = "imdb-sentiment"
    served = "serving.classification"
    multi_label = False
    """Whether a text has any number of labels."""
    description = "Classification: a text (or a pair of texts) in, its label with the probability out."
    unit = "texts"
    confidence = "probability"
    right = "the right label"
    further_scores: tuple[str, ...] = ("f1_macro",)
    weighs_classes = True
    distils = True
    balanced_by: str | None = "label"
    onnx_outputs = ("logits",)
    same_answer = ("label",)

    def head(self, kind: str) -> str | None:
        """The same for every kind of family; which families are offered stands in their rows."""
        return "SequenceClassification"

    def head_config(self, record: "DataRecord") -> dict[str, Any]:
        """The names of the classes. Where `problem_type` is left out, transformers takes one label for each text."""
        labels = dict(enumerate(record.labels))
        return {"id2label": labels, "label2id": {v: k for k, v in labels.items()}} if labels else {}

    def texts(self, example: Example) -> list[str]:
        """The text, or both of a pair."""
        return [example[name] for name in ("text", "text_pair") if name in example]

    def features(self, tokenizer: Any, config: Any, examples: Sequence[Example], args: Settings) -> Any:
        """The beginning of each text; what is longer than `max_length` is cut off, of a pair off the longer text."""
        from ...models.families import uses_segment_ids
        from .texts import make_texts

        return make_texts(
            tokenizer,
            examples,
            max_length=args.max_length,
            segment_ids=uses_segment_ids(config),
            names=[config.id2label[i] for i in range(config.num_labels)],
            multi_label=self.multi_label,
        )

    def collator(self, tokenizer: Any, config: Any) -> Callable[[Sequence[Any]], dict[str, "torch.Tensor"]]:
        """Pads to the longest text of a batch."""
        from ..batching import Collator

        return Collator(tokenizer.pad_token_id)

    def loss(self, model: Any, batch: dict[str, "torch.Tensor"], labels: "torch.Tensor") -> "torch.Tensor":
        """Cross-entropy of the label; labels: (batch,)."""
        from .work import label_loss

        return label_loss(model, batch, labels)

    def training_loss(self, features: Any, args: Settings, labels: Sequence[str]) -> Loss:
        """With `class_weights` "balanced", classes count alike however many texts each has."""
        from .work import training_loss

        balanced = args.class_weights == "balanced"
        if not (balanced or args.label_smoothing):
            return self.loss
        of = [features[i]["labels"] for i in range(len(features))] if balanced else []
        return training_loss(of, len(labels), balanced, args.label_smoothing)

    def outputs(
        self,
        model: Any,
        features: Any,
        collator: Any,
        args: Settings,
        part: tuple[int, int],
        progress: str | None,
    ) -> Any:
        """The logits of every text."""
        from .texts import predict_logits

        return predict_logits(model, features, collator, part=part, progress=progress)

    def join(self, parts: Sequence[Any]) -> Any:
        """The logits of all texts, in their order."""
        from .texts import join

        return join(parts)

    def predictions(
        self, outputs: Any, features: Any, examples: Sequence[Example], args: Settings, decision: Decision
    ) -> list[Any]:
        """The likeliest label of each text."""
        from .work import predictions

        return predictions(outputs, features.names)

    def score(
        self, predictions: Sequence[Any], examples: Sequence[Example], version: str
    ) -> tuple[Figures, dict[str, "np.ndarray"]]:
        """Accuracy, and F1 with its interval."""
        from .work import score

        return score(predictions, examples)

    def candidates(self, predictions: Sequence[Any]) -> "Candidates | None":
        """The labels; the logarithms of their probabilities are their logits, but for a constant."""
        from .work import candidates

        return candidates(predictions)

    def taught(self, out: Any) -> "torch.Tensor":
        """The logits of the classes."""
        return out.logits.float()

    def divergence(
        self, out: Any, taught: "torch.Tensor", mask: "torch.Tensor", temperature: float
    ) -> "torch.Tensor":
        """Over the classes of each text."""
        from ..distillation import label_divergence

        return label_divergence(out.logits.float(), taught.squeeze(1), temperature)

    def row(self, prediction: Any, example: Example) -> dict[str, Any]:
        """Predicted and true label, and the probabilities; of many labels those of the likeliest."""
        from .work import likeliest

        names = prediction.names
        return {
            "prediction": names[prediction.label],
            "label": names[example["label"]],
            "probability": float(prediction.probabilities[prediction.label]),
            "probabilities": likeliest(prediction.probabilities, names),
        }

    def extras(self, predictions: Sequence[Any], examples: Sequence[Example]) -> Extras:
        """The confusion matrix, a table of the classes, and the predictions as arrays."""
        from .work import extras

        return extras(predictions, examples)

    def request(self, example: Example) -> dict[str, str]:
        """The text, or both of a pair."""
        return {name: example[name] for name in ("text", "text_pair") if name in example}

    def stored_settings(self, args: Settings, record: "DataRecord", decision: Decision) -> dict[str, Any]:
        """The longest text, the names of the classes in the order of the logits, and whether texts come in pairs."""
        stored = {"max_length": args.max_length, "labels": list(record.labels)}
        return stored | ({"pairs": True} if record.pairs else {})

    def disagreements(
        self, rows: Sequence[Row], answers: Sequence[Answer], about: "BundleInfo", precision: str
    ) -> list[str]:
        """Another label agrees where the run held it for as likely."""
        from .agreement import TOLERANCE, relabelled

        tolerance = TOLERANCE.get(precision, TOLERANCE["fp32"])
        return relabelled(rows, answers, tolerance, about.settings.get("temperature", 1.0))

    def served_score(
        self, answers: Sequence[Answer], rows: Sequence[Row], examples: Sequence[Example]
    ) -> float:
        """Accuracy; the true labels are in the rows."""
        right = [answer["label"] == row["label"] for answer, row in zip(answers, rows, strict=True)]
        return 100 * sum(right) / len(right)

    def named(self, example: Example, record: "DataRecord") -> Example:
        """With the name of the label as `label`."""
        return {**example, "label": record.labels[example["label"]]}

    def judged(
        self, answers: Sequence[Answer], examples: Sequence[Example]
    ) -> tuple[Figures, dict[str, "np.ndarray"]]:
        """Labels are matched by their names: a model may have been trained on data that numbers them otherwise."""
        from .work import judged, score

        return score(*judged(answers, examples))

    def described(self, example: Example, record: "DataRecord") -> dict[str, Any]:
        """The example with the name of its label, which is a slice."""
        names = record.labels
        if not names:
            return dict(example)
        name, shown = names[example["label"]], self.slices_of(record)
        return {**example, "label_name": name if name in shown else f"another of {len(names)} labels"}

    def slices(self, example: Example) -> dict[str, str]:
        """By length and label."""
        from ...scoring.slices import text_slices

        return text_slices(example)

    @staticmethod
    def slices_of(record: "DataRecord") -> set[str]:
        """The labels that have a slice of their own: of more than MOST_SLICES those with the most test texts."""
        counts = record.texts_by_label("test")
        return set(sorted(record.labels, key=lambda name: (-counts.get(name, 0), name))[:MOST_SLICES])
