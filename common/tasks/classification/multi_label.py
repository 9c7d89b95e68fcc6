"""Classification of texts, and of pairs of texts, with any number of labels for each as a task."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..interface import Answer, Decision, Example, Extras, Figures, Loss, Row, Settings
from .task import Classification

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ...data.record import DataRecord
    from ...models.bundles import BundleInfo


class MultiLabelClassification(Classification):
    """A text in, or two, every label that it has out.

    `f1_samples` decides: unlike micro-F1 it is a mean over texts, so that intervals, paired tests, slices and the gate of
    promotion judge by the very score that decides. Micro- and macro-F1 stand beside it, with intervals of their own.
    """

    name = "multi-label-classification"
    data = "multi-label text"
    data_dir = "multi_label_data"
    metrics = ("f1_samples", "subset_accuracy")
    experiment = "multi-label"
    registered = "multi-label"
    served = "serving.multi_label"
    multi_label = True
    description = (
        "Multi-label classification: a text (or a pair of texts) in, its labels with their probabilities out."
    )
    right = "exactly the right labels"
    further_scores = ("f1_micro", "f1_macro")
    balanced_by = None
    same_answer = ("labels",)

    def head_config(self, record: "DataRecord") -> dict[str, Any]:
        """The names of the classes, each of which is decided by itself."""
        return super().head_config(record) | {"problem_type": "multi_label_classification"}

    def loss(self, model: Any, batch: dict[str, "torch.Tensor"], labels: "torch.Tensor") -> "torch.Tensor":
        """Binary cross-entropy of every label; labels: (batch, classes)."""
        from .label_sets import labels_loss

        return labels_loss(model, batch, labels)

    def training_loss(self, features: Any, args: Settings, labels: Sequence[str]) -> Loss:
        """With `class_weights` "balanced", the labels that a text has count more, the rarer they are."""
        from .label_sets import training_loss

        balanced = args.class_weights == "balanced"
        if not (balanced or args.label_smoothing):
            return self.loss
        targets = [features[i]["labels"] for i in range(len(features))] if balanced else []
        return training_loss(targets, len(labels), balanced, args.label_smoothing)

    def divergence(
        self, out: Any, taught: "torch.Tensor", mask: "torch.Tensor", temperature: float
    ) -> "torch.Tensor":
        """Each class is a decision of its own."""
        from ..distillation import label_set_divergence

        return label_set_divergence(out.logits.float(), taught.squeeze(1), temperature)

    def predictions(
        self, outputs: Any, features: Any, examples: Sequence[Example], args: Settings, decision: Decision
    ) -> list[Any]:
        """The labels of each text whose probability reaches their threshold. decision: the thresholds."""
        from .label_sets import predictions

        return predictions(outputs, features.names, decision)

    def decide(self, predictions: Sequence[Any], examples: Sequence[Example], version: str) -> Decision:
        """A threshold for each label."""
        from .label_sets import decide

        return decide(predictions, examples)

    def score(
        self, predictions: Sequence[Any], examples: Sequence[Example], version: str
    ) -> tuple[Figures, dict[str, "np.ndarray"]]:
        """F1 averaged over texts, over all decisions and over labels, and the share of texts with exactly their labels."""
        from .label_sets import score

        return score(predictions, examples)

    def row(self, prediction: Any, example: Example) -> dict[str, Any]:
        """Predicted and true labels, how certain the least certain of them is, and the probabilities."""
        from .work import likeliest

        names = prediction.names
        probabilities = likeliest(prediction.probabilities, names)
        probabilities |= {names[i]: float(prediction.probabilities[i]) for i in prediction.labels}
        return {
            "prediction": [names[i] for i in prediction.labels],
            "labels": [names[i] for i in example["label"]],
            "probability": prediction.certainty,
            "probabilities": probabilities,
        }

    def extras(self, predictions: Sequence[Any], examples: Sequence[Example]) -> Extras:
        """A table of the labels, and the predictions as arrays."""
        from .label_sets import extras

        return extras(predictions, examples)

    def stored_settings(self, args: Settings, record: "DataRecord", decision: Decision) -> dict[str, Any]:
        """As for one label, with the threshold of each."""
        return super().stored_settings(args, record, decision) | {"thresholds": list(decision)}

    def disagreements(
        self, rows: Sequence[Row], answers: Sequence[Answer], about: "BundleInfo", precision: str
    ) -> list[str]:
        """A label may be given or missing where the run's probability lay at its threshold."""
        from .agreement import TOLERANCE, relabelled_sets

        thresholds = dict(zip(about.settings["labels"], about.settings["thresholds"], strict=True))
        return relabelled_sets(rows, answers, thresholds, TOLERANCE.get(precision, TOLERANCE["fp32"]))

    def apart(self, answer: Answer, other: Answer) -> float | None:
        """The largest difference among the probabilities of labels that one answer has and the other lacks."""
        changed = set(answer["labels"]) ^ set(other["labels"])
        if not changed:
            return None
        one, two = answer["probabilities"], other["probabilities"]
        return max(abs(float(one[name]) - float(two[name])) for name in changed)

    def served_score(
        self, answers: Sequence[Answer], rows: Sequence[Row], examples: Sequence[Example]
    ) -> float:
        """F1 averaged over texts; the true labels are in the rows."""
        from .label_sets import set_f1

        pairs = zip(answers, rows, strict=True)
        return 100 * sum(set_f1(set(a["labels"]), set(row["labels"])) for a, row in pairs) / len(rows)

    def candidates(self, predictions: Sequence[Any]) -> None:
        """None: each label has a probability of its own, and the set of them has none."""
        return None

    def named(self, example: Example, record: "DataRecord") -> Example:
        """With the names of the labels as `label`."""
        return {**example, "label": [record.labels[i] for i in example["label"]]}

    def judged(
        self, answers: Sequence[Answer], examples: Sequence[Example]
    ) -> tuple[Figures, dict[str, "np.ndarray"]]:
        """Labels are matched by their names."""
        from .label_sets import judged, score

        return score(*judged(answers, examples))

    def described(self, example: Example, record: "DataRecord") -> dict[str, Any]:
        """The example with the names of those of its labels that are slices."""
        shown = self.slices_of(record)
        names = [record.labels[i] for i in example["label"]]
        return {**example, "label_names": [name for name in names if name in shown]}

    def slices(self, example: Example) -> dict[str, str]:
        """By length, by the number of labels, and for each label the texts that have it."""
        from ...scoring.slices import label_set_slices

        return label_set_slices(example)
