"""The kinds of work that the suite trains for, as data: a new task is a new row of TASKS and a module with its `Work`."""

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import UserError


@dataclass(frozen=True)
class Task:
    """What every part of the suite may know of a task without loading a model."""

    name: str
    data: str
    """Kind of prepared data: "qa" (questions on contexts) or "text" (texts with a label)."""
    data_dir: str
    """Folder of the project that holds it by default."""
    metrics: tuple[str, ...]
    """Scores of single examples that are reported with intervals; the first one decides. Logged as `test_<metric>`."""
    experiment: str
    """MLflow experiment by default."""
    registered: str
    """Name of the registered model."""
    served: str
    """Module of this package that serves it; defines MODEL, SIGNATURE, EXAMPLE_PARAMETERS, ASKED (the columns of a
    request) and `is_taken`."""
    description: str = ""
    """What the registered model takes and gives."""
    unit: str = "questions"
    """What its examples are called."""
    generates: bool = False
    """Whether its models write behind their input, so that what they write takes room beside it."""

    @property
    def metric(self) -> str:
        """The score that chooses the epoch, the run and the champion."""
        return self.metrics[0]


TASKS = {
    task.name: task
    for task in (
        Task(
            name="extractive-qa",
            data="qa",
            data_dir="squad_data",
            metrics=("f1", "exact_match"),
            experiment="squad-qa",
            registered="bert-squad-qa",
            served="serving.extractive_qa",
            description="Extractive question answering: question and context in, answer out.",
        ),
        Task(
            name="classification",
            data="text",
            data_dir="imdb_data",
            metrics=("accuracy",),
            experiment="imdb-sentiment",
            registered="imdb-sentiment",
            served="serving.classification",
            description="Classification of texts: text in, label and its probability out.",
            unit="texts",
        ),
        Task(
            name="generative-qa",
            data="qa",
            data_dir="squad_data",
            metrics=("f1", "exact_match"),
            experiment="generative-qa",
            registered="generative-qa",
            served="serving.generative_qa",
            description="Generative question answering: question and context in, written answer out.",
            generates=True,
        ),
    )
}

DEFAULT_TASK = "extractive-qa"


def task_of(name: str) -> Task:
    """The row for a task's name; UserError with the tasks at hand if there is none."""
    try:
        return TASKS[name]
    except KeyError:
        raise UserError(f"--task is {name!r}: choose one of {', '.join(TASKS)}.") from None


@dataclass(frozen=True)
class Work:
    """What training does for a task, as functions. `examples` are rows of prepared data; `args` is a RunArgs;
    `features` is a torch Dataset over model inputs that also has `lengths`, an array of their lengths in tokens."""

    features: Callable
    """(tokenizer, model config, examples, args) → features."""
    collator: Callable
    """(tokenizer, model config) → function from a list of features' items to a batch of tensors with `labels`."""
    loss: Callable
    """(model, batch without its labels, labels) → the loss summed over every label that is not -100."""
    outputs: Callable
    """(model, features, collator, args, part, progress) → what the model makes of them, picklable; part (i, n): the
    i-th of n shares."""
    join: Callable
    """List of the outputs of all shares → the outputs of the whole."""
    predictions: Callable
    """(outputs, features, examples, args, decision) → one prediction for each example, in order."""
    decide: Callable
    """(predictions made with a decision of 0, examples, data version) → the number that validation decides, or None."""
    score: Callable
    """(predictions, examples, data version) → (figures in percent by name, {metric: score of each example, 0 to 1})."""
    row: Callable
    """(prediction, example) → what predictions/test.json keeps of it, beside `id` and the scores."""
    request: Callable
    """example → the fields of it that a served model is asked with."""
    extras: Callable = lambda predictions, examples, folder: None
    """(predictions, examples, folder): write further artifacts of the test into the folder."""
    trained: Callable = lambda features, version: features
    """(features, data version) → those of them that are trained on."""
    unpadded_loss: Callable | None = None
    """family → `loss` on the batch's real tokens alone; None where the task has none."""
