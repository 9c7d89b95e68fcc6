"""What a task is: one class that answers whatever the suite asks about the kind of work that a model is trained for.

This module imports neither torch nor transformers, because every script imports the table of tasks to show its help.
A task's methods import what they compute with when they are called.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ..data.record import DataRecord
    from ..models.bundles import BundleInfo
    from ..models.families import Family

Example = Mapping[str, Any]
"""A row of prepared data; `id` is in each."""

Row = Mapping[str, Any]
"""A row of a run's predictions/test.json: `id`, the scores of the example, and what `Task.row` gives."""

Answer = Mapping[str, Any]
"""What a served model gives for one record; its best answer where it gives several."""

Figures = dict[str, float]
"""Scores in percent, by name."""

Loss = Callable[[Any, dict[str, "torch.Tensor"], "torch.Tensor"], "torch.Tensor"]
"""(model, batch without its labels, labels) → the loss, summed over every label that is not -100."""


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


@dataclass(frozen=True)
class Extras:
    """Further artifacts of a test, as data: file name → content. Training writes them and draws the matrices."""

    documents: Mapping[str, Any] = field(default_factory=dict)
    """What is written as JSON."""
    arrays: Mapping[str, Mapping[str, "np.ndarray"]] = field(default_factory=dict)
    """What is written as a compressed .npz: name → array."""
    confusion: Mapping[str, tuple["np.ndarray", Sequence[str]]] = field(default_factory=dict)
    """What is drawn as a confusion matrix: (counts (classes, classes), names of the classes)."""


class Task(ABC):
    """A kind of work that models are trained for. A new task is a subclass and a line in the table.

    `features` are a torch Dataset over model inputs that also has `lengths`, an array of their lengths in tokens. What
    `outputs` returns can be pickled, because the processes of a launcher exchange it. `version` is the version of the
    prepared data, as its record names it.
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
    """Name of the registered model."""
    served: str
    """Module of the package `common` that serves the task. It defines MODEL, SIGNATURE, EXAMPLE_PARAMETERS, ASKED (the
    columns of a request), `is_taken` and `best_answers`."""
    description: str = ""
    """What the registered model takes and gives."""
    unit: str = "questions"
    """What its examples are called."""
    confidence: str
    """Field of a row that says how sure the model was."""
    right: str
    """What "right" means, in words, for an example whose last metric is 1."""
    balanced_by: str | None = None
    """Column whose values are drawn equally often where only a part of the examples is used."""
    packs: bool = False
    """Whether `unpadded_loss` computes its batches end to end."""
    onnx_outputs: tuple[str, ...] = ()
    """Outputs of the network that decoding needs, in order, for an export to ONNX. Empty: the task has no export."""
    same_answer: tuple[str, ...] = ("answer",)
    """Fields of a served answer that must be equal for two answers to be the same."""
    needs_offsets: bool = False
    """Whether the tokenizer must say where in the text its tokens stand."""

    @property
    def metric(self) -> str:
        """The score that chooses the epoch, the run and the champion."""
        return self.metrics[0]

    # The model.

    @abstractmethod
    def head(self, kind: str) -> str | None:
        """The end of transformers' class name ("QuestionAnswering") for a kind of family; None where the kind has none."""

    def head_config(self, record: "DataRecord") -> dict[str, Any]:
        """Fields of the model's config that the data decides. record: of the prepared data."""
        return {}

    # Settings and data, checked before anything is trained.

    def check_settings(self, args: Settings) -> None:
        """UserError names a setting that no model could be trained with."""
        return None

    def further_tokens(self, args: Settings, kind: str) -> dict[str, int]:
        """What takes positions beside the input, in words → tokens. kind: the family's."""
        return {}

    @abstractmethod
    def texts(self, example: Example) -> list[str]:
        """The texts that a tokenizer must be able to read."""

    def given_back(self, tokenizer: Any, examples: Sequence[Example]) -> list[str] | None:
        """The first true answer of each example as a perfect model would give it; None where answers are no text."""
        return None

    def data_title(self, version: str) -> str:
        """The version of the data as a reader knows it."""
        return version

    # Training and evaluation.

    @abstractmethod
    def features(self, tokenizer: Any, config: Any, examples: Sequence[Example], args: Settings) -> Any:
        """The model's inputs, made of examples. config: the model's."""

    def trained(self, features: Any, version: str) -> Any:
        """Those of the features that are trained on."""
        return features

    @abstractmethod
    def collator(self, tokenizer: Any, config: Any) -> Callable[[Sequence[Any]], dict[str, "torch.Tensor"]]:
        """A function from a list of features' items to a batch of tensors with `labels`."""

    @abstractmethod
    def loss(self, model: Any, batch: dict[str, "torch.Tensor"], labels: "torch.Tensor") -> "torch.Tensor":
        """The loss, summed over every label that is not -100. batch: without its labels."""

    def unpadded_loss(self, family: "Family") -> Loss:
        """`loss` on the batch's real tokens alone. Only tasks that pack have one."""
        raise TypeError(f"{self.name} has no loss without padding")

    @abstractmethod
    def outputs(
        self,
        model: Any,
        features: Any,
        collator: Any,
        args: Settings,
        part: tuple[int, int],
        progress: str | None,
    ) -> Any:
        """What the model makes of the i-th of n shares of the features, for part (i, n). progress: label of a bar."""

    @abstractmethod
    def join(self, parts: Sequence[Any]) -> Any:
        """The outputs of all shares as one."""

    @abstractmethod
    def predictions(
        self, outputs: Any, features: Any, examples: Sequence[Example], args: Settings, decision: float | None
    ) -> list[Any]:
        """One prediction for each example, in order. decision: the number that validation decided, if any."""

    def decide(self, predictions: Sequence[Any], examples: Sequence[Example], version: str) -> float | None:
        """The number that validation decides, from predictions that were made with 0 in its place; None: nothing."""
        return None

    @abstractmethod
    def score(
        self, predictions: Sequence[Any], examples: Sequence[Example], version: str
    ) -> tuple[Figures, dict[str, "np.ndarray"]]:
        """(figures in percent by name, {metric: score of each example, 0 to 1})."""

    @abstractmethod
    def row(self, prediction: Any, example: Example) -> dict[str, Any]:
        """What predictions/test.json keeps of a prediction beside `id` and the scores; `prediction` is in it."""

    def extras(self, predictions: Sequence[Any], examples: Sequence[Example]) -> Extras:
        """Further artifacts of the test."""
        return Extras()

    # Serving and what is judged of served models.

    @abstractmethod
    def request(self, example: Example) -> dict[str, str]:
        """The fields of an example that a served model is asked with."""

    @abstractmethod
    def stored_settings(self, args: Settings, record: "DataRecord", decision: float | None) -> dict[str, Any]:
        """What the module that serves the task needs to know of a run, as JSON holds it. decision: what validation decided."""

    @abstractmethod
    def disagreements(
        self, rows: Sequence[Row], answers: Sequence[Answer], about: "BundleInfo", precision: str
    ) -> list[str]:
        """A line for each example that a served model answers otherwise than its run, beyond what rounding explains.

        rows: of the run; answers: of the served model to the same examples; precision: the run's.
        """

    @abstractmethod
    def served_score(
        self, answers: Sequence[Answer], rows: Sequence[Row], examples: Sequence[Example]
    ) -> float:
        """The deciding score, in percent, of a served model's answers.

        rows: the run's own, one for each answer. examples: the test data likewise; empty where it is not at hand, and the
        run's own predictions then stand for the truth.
        """

    @abstractmethod
    def judged(
        self, answers: Sequence[Answer], examples: Sequence[Example]
    ) -> tuple[list[Any], Sequence[Example]]:
        """(predictions, references) as `score` takes them, of a served model's answers to any examples.

        answers: with all `alternatives` where they are labels.
        """

    # Analysis of errors.

    def described(self, example: Example, record: "DataRecord") -> dict[str, Any]:
        """A test example with what slices need to know of it. record: of the prepared data."""
        return dict(example)

    @abstractmethod
    def slices(self, example: Example) -> dict[str, str]:
        """Dimension → slice of an example that `described` gave."""
