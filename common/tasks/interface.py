"""The interface of a task: one class that answers everything the suite asks about the work that a model is trained for.

This module imports neither torch nor transformers, because every script imports the table of tasks to show its help.
A task's methods import the modules that compute when they are called.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from ..data.record import DataRecord
    from ..models.bundles import BundleInfo
    from ..models.families import Family
    from ..scoring.calibration import Candidates
    from .batching import Batch

Example = Mapping[str, Any]
"""A row of prepared data; each has an `id`."""

Row = Mapping[str, Any]
"""A row of a run's predictions/test.json: `id`, the scores of the example, and the fields of `Task.row`."""

Answer = Mapping[str, Any]
"""A served model's answer to one record; the best one where it gives several."""

Figures = dict[str, float]
"""Scores in percent, by name."""

Loss = Callable[["torch.nn.Module", "Batch", "torch.Tensor"], "torch.Tensor"]
"""(model, batch without its labels, labels) → the loss, summed over every label that is not -100."""

Decision = Any
"""What validation decides for a run, such as a threshold, or one for each label; None: nothing. Only its task reads it."""


class Settings(Protocol):
    """The settings of a run that tasks read."""

    @property
    def max_length(self) -> int: ...
    @property
    def doc_stride(self) -> int: ...
    @property
    def max_answer_length(self) -> int: ...
    @property
    def n_best(self) -> int: ...
    @property
    def class_weights(self) -> str: ...
    @property
    def label_smoothing(self) -> float: ...


@dataclass(frozen=True)
class Extras:
    """Further artifacts of a test, as data: file name → content. Training writes them and draws the matrices."""

    documents: Mapping[str, Any] = field(default_factory=dict)
    """What is written as JSON."""
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """What is written as CSV: rows with the same keys."""
    arrays: Mapping[str, Mapping[str, "np.ndarray"]] = field(default_factory=dict)
    """What is written as a compressed .npz: name → array."""
    confusion: Mapping[str, tuple["np.ndarray", Sequence[str]]] = field(default_factory=dict)
    """What is drawn as a confusion matrix: (counts (classes, classes), names of the classes)."""


class Task(ABC):
    """A kind of work that models are trained for. A new task is a subclass and a line in the table.

    `features` are a torch Dataset over model inputs that also has `lengths`, an array of their lengths in tokens. The
    result of `outputs` can be pickled, because the processes of a launcher exchange it. `version` is the version of the
    prepared data, as its record names it. Features, outputs and predictions are of types that only their task knows.
    """

    name: str
    data: str
    """Kind of prepared data: "qa" (questions on contexts) or "text" (texts with a label)."""
    data_dir: str
    """Folder of the project that holds the data by default."""
    metrics: tuple[str, ...]
    """Scores of single examples that are reported with intervals; the first one decides. Logged as `test_<metric>`."""
    experiment: str
    """MLflow experiment by default."""
    registered: str
    """Name of the registered model, where the data was not given a name."""
    suffix: str = ""
    """What the registered model is called behind the name of the data, where another task takes the same data."""
    served: str
    """Module of the package `common` that serves the task. It defines MODEL, SIGNATURE (or `signature`, which makes it for a
    request such as the given one), EXAMPLE_PARAMETERS, ASKED (the columns of a request), `is_taken` and `best_answers`."""
    multi_label: bool = False
    """Whether an example has any number of labels."""
    description: str = ""
    """Inputs and outputs of the registered model, in words."""
    unit: str = "questions"
    """The name of its examples, in the plural."""
    confidence: str
    """The field of a row that says how sure the model was."""
    right: str
    """What "right" means, in words, for an example whose last metric is 1."""
    further_scores: tuple[str, ...] = ()
    """Scores of the whole test that comparisons show beside `metrics`: logged as `test_<name>` with `_low` and `_high`."""
    weighs_classes: bool = False
    """Whether --class_weights applies to its loss."""
    balanced_by: str | None = None
    """The column whose values are drawn equally often where only a part of the examples is used."""
    packs: bool = False
    """Whether `unpadded_loss` computes its batches end to end."""
    onnx_outputs: tuple[str, ...] = ()
    """The network's outputs that decoding needs, in order, for an export to ONNX. Empty: the task has no export."""
    same_answer: tuple[str, ...] = ("answer",)
    """Fields of a served answer that must be equal for two answers to be the same."""
    distils: bool = False
    """Whether a teacher's logits can be learned from."""
    needs_offsets: bool = False
    """Whether the tokenizer must say where in the text its tokens stand."""

    @property
    def metric(self) -> str:
        """The score that chooses the epoch, the run and the champion."""
        return self.metrics[0]

    # The model.

    @abstractmethod
    def head(self, kind: str) -> str | None:
        """The end of transformers' class name ("QuestionAnswering") for a kind of family; None where there is no such class."""

    def head_config(self, record: "DataRecord") -> dict[str, Any]:
        """Fields of the model's config that the data decides. record: of the prepared data."""
        return {}

    # Settings and data, checked before anything is trained.

    def check_settings(self, args: Settings) -> None:
        """UserError names a setting with which no model can be trained."""
        return None

    def further_tokens(self, args: Settings, kind: str) -> dict[str, int]:
        """Name → number of the tokens that take positions beside the input. kind: the family's."""
        return {}

    @abstractmethod
    def texts(self, example: Example) -> list[str]:
        """The texts that a tokenizer must be able to read."""

    def given_back(
        self, tokenizer: "PreTrainedTokenizerBase", examples: Sequence[Example]
    ) -> list[str] | None:
        """The first true answer of each example as a perfect model would give it; None where answers are not texts."""
        return None

    def data_title(self, version: str) -> str:
        """The version of the data, as readers know it."""
        return version

    # Training and evaluation.

    @abstractmethod
    def features(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        config: "PreTrainedConfig",
        examples: Sequence[Example],
        args: Settings,
    ) -> Any:
        """The model's inputs, made from examples. config: the model's."""

    def trained(self, features: Any, version: str) -> Any:
        """The features that are trained on."""
        return features

    @abstractmethod
    def collator(
        self, tokenizer: "PreTrainedTokenizerBase", config: "PreTrainedConfig"
    ) -> "Callable[[Sequence[Any]], Batch]":
        """A function from a list of features' items to a batch of tensors with `labels`."""

    @abstractmethod
    def loss(self, model: "torch.nn.Module", batch: "Batch", labels: "torch.Tensor") -> "torch.Tensor":
        """The loss, summed over every label that is not -100. batch: without its labels."""

    def training_loss(self, features: Any, args: Settings, labels: Sequence[str]) -> Loss:
        """The loss that training uses: `loss`, or one that depends on settings and on the features that are trained on.

        labels: names of the data's labels, by number.
        """
        return self.loss

    def unpadded_loss(self, family: "Family", args: Settings) -> Loss:
        """`training_loss`, computed on the batch's real tokens alone. Only tasks that pack have one."""
        raise TypeError(f"{self.name} has no loss without padding")

    @abstractmethod
    def outputs(
        self,
        model: "torch.nn.Module",
        features: Any,
        collator: Any,
        args: Settings,
        part: tuple[int, int],
        progress: str | None,
    ) -> Any:
        """The model's outputs for the i-th of n shares of the features, for part (i, n). progress: label of a bar."""

    @abstractmethod
    def join(self, parts: Sequence[Any]) -> Any:
        """The outputs of all shares as one."""

    @abstractmethod
    def predictions(
        self, outputs: Any, features: Any, examples: Sequence[Example], args: Settings, decision: Decision
    ) -> list[Any]:
        """One prediction for each example, in order. decision: what validation decided, if anything."""

    def decide(self, predictions: Sequence[Any], examples: Sequence[Example], version: str) -> Decision:
        """What validation decides, from predictions that were made before anything was decided; None: nothing."""
        return None

    def decided(self, decision: Decision) -> Figures:
        """The metrics that a run logs of what validation decided."""
        return {}

    @abstractmethod
    def score(
        self, predictions: Sequence[Any], examples: Sequence[Example], version: str
    ) -> tuple[Figures, dict[str, "np.ndarray"]]:
        """(figures in percent by name, {metric: score of each example, 0 to 1})."""

    def candidates(self, predictions: Sequence[Any]) -> "Candidates | None":
        """What each example could have been answered with, and was: the raw confidence that a served model's `raw_score` is.

        None: the task gives no confidence in its answers as a whole, and nothing is calibrated.
        """
        return None

    def groups(self, examples: Sequence[Example], record: "DataRecord") -> list[str] | None:
        """(N,) what the validation examples were drawn in as a whole, such as articles; None: each was drawn by itself.

        record: of the prepared data.
        """
        return None

    @abstractmethod
    def row(self, prediction: Any, example: Example) -> dict[str, Any]:
        """The fields of a prediction in predictions/test.json beside `id` and the scores; `prediction` is one of them."""

    def extras(self, predictions: Sequence[Any], examples: Sequence[Example]) -> Extras:
        """Further artifacts of the test."""
        return Extras()

    # Learning from a teacher's logits. Only tasks that distil have these.

    def taught(self, out: Any) -> "torch.Tensor":
        """What a teacher's output teaches: (batch, length, width) where a token is looked for, else (batch, classes)."""
        raise TypeError(f"{self.name} has no teacher")

    def divergence(
        self, out: Any, taught: "torch.Tensor", mask: "torch.Tensor", temperature: float
    ) -> "torch.Tensor":
        """How far a student's output is from what is taught, summed: KL(teacher || student), both at a temperature.

        taught: (batch, length, width), padded, or (batch, 1, classes). mask: (batch, length), 1 for real tokens.
        """
        raise TypeError(f"{self.name} has no teacher")

    def carried_over(
        self, taught: "Sequence[np.ndarray]", of: Any, to: Any, args: Settings
    ) -> "Iterator[np.ndarray]":
        """What a teacher with another tokenizer teaches, as rows (length, width) for each of a student's features, in order.

        of, to: the teacher's and the student's features of the same examples. taught: the teacher's rows for each of `of`. Only
        tasks that distil and need offsets have it.
        """
        raise TypeError(f"{self.name} has no teacher")

    # Serving, and judging served models.

    @abstractmethod
    def request(self, example: Example) -> dict[str, str]:
        """The fields of an example that are sent to a served model."""

    @abstractmethod
    def stored_settings(self, args: Settings, record: "DataRecord", decision: Decision) -> dict[str, Any]:
        """What the module that serves the task needs to know of a run, as JSON holds it. decision: what validation decided."""

    @abstractmethod
    def disagreements(
        self, rows: Sequence[Row], answers: Sequence[Answer], about: "BundleInfo", precision: str
    ) -> list[str]:
        """A line for each example that a served model answers differently from its run, beyond what rounding explains.

        rows: of the run; answers: of the served model to the same examples; precision: the run's.
        """

    def apart(self, answer: Answer, other: Answer) -> float | None:
        """How far the probabilities of two different answers lie apart, 0 to 1; None where the answers are the same."""
        if all(answer[name] == other[name] for name in self.same_answer):
            return None
        return abs(float(answer["score"]) - float(other["score"]))

    @abstractmethod
    def served_score(
        self, answers: Sequence[Answer], rows: Sequence[Row], examples: Sequence[Example]
    ) -> float:
        """The deciding score, in percent, of a served model's answers.

        rows: the run's own, one for each answer. examples: the test data, likewise; empty where it is not available, and
        the run's own predictions then count as the truth.
        """

    def named(self, example: Example, record: "DataRecord") -> Example:
        """An example of prepared data as examples of files are: labels by their names. record: of the prepared data."""
        return example

    @abstractmethod
    def judged(
        self, answers: Sequence[Answer], examples: Sequence[Example]
    ) -> tuple[Figures, dict[str, "np.ndarray"]]:
        """What `score` gives, of a served model's answers to any examples.

        answers: with all `alternatives` where they are labels. examples: with `label` as the name of a label, or the list of
        names.
        """

    def right_of(self, each: Mapping[str, "np.ndarray"]) -> "np.ndarray":
        """(N,) whether each answer is right as a whole. each: the scores by metric, as `score` and `judged` give them."""
        return each[self.metrics[-1]] == 1

    # Analysis of errors.

    def described(self, example: Example, record: "DataRecord") -> dict[str, Any]:
        """A test example with the further fields that slices need. record: of the prepared data."""
        return dict(example)

    @abstractmethod
    def slices(self, example: Example) -> dict[str, str]:
        """Dimension → slice of an example that `described` returned."""
