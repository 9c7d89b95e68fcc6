"""A finished run's test in short: its scores with intervals, and where its page is."""

from collections.abc import Mapping
from dataclasses import dataclass

import mlflow

from ..errors import UserError
from ..scoring.names import LABELS
from ..tasks.table import DEFAULT_TASK, task_of
from . import store


@dataclass(frozen=True)
class Score:
    """A test score in percent with its 95% bootstrap interval over the test examples."""

    value: float
    low: float
    high: float

    def cells(self) -> tuple[str, str]:
        """(value, interval) as texts."""
        return f"{self.value:.1f}", f"{self.low:.1f} to {self.high:.1f}"

    def __str__(self) -> str:
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"


@dataclass(frozen=True)
class RunSummary:
    """What is to be known of a finished run at a glance."""

    run_id: str
    technique: str
    task: str
    data: str
    """The name of the data."""
    examples: int
    """Test examples."""
    scores: Mapping[str, Score]
    """Metric → its score, the deciding one first."""
    url: str | None
    """The run's page where MLflow is a server; None for a local store."""

    def title(self) -> str:
        """The technique and what it was tested on."""
        return f"{self.technique} on {self.data} ({self.examples} test {task_of(self.task).unit})"

    def named_scores(self) -> list[tuple[str, Score]]:
        """The scores under the names that tables and figures give them."""
        return [(LABELS[name], score) for name, score in self.scores.items()]

    def sentence(self) -> str:
        """The result in one line."""
        return f"{self.title()}: {', '.join(f'{name} {score}' for name, score in self.named_scores())}"


def summary(run_id: str) -> RunSummary:
    """Of a finished, tested run; UserError if the store has no such run, or it was not tested."""
    store.configure()
    with store.explained(f"run {run_id} cannot be read"):
        run = mlflow.get_run(run_id)
    tags, metrics = run.data.tags, run.data.metrics
    if "test_examples" not in metrics:
        raise UserError(f"Run {run_id} holds no test: it is {run.info.status}.")
    task = task_of(tags.get("task", DEFAULT_TASK))
    scores = {
        name: Score(*(metrics[f"test_{name}{end}"] for end in ("", "_low", "_high"))) for name in task.metrics
    }
    uri = mlflow.get_tracking_uri()
    page = f"{uri.rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{run_id}"
    return RunSummary(
        run_id=run_id,
        technique=tags.get("technique", "?"),
        task=task.name,
        data=tags.get("data_name", "?"),
        examples=int(metrics["test_examples"]),
        scores=scores,
        url=store.without_secrets(page) if uri.startswith(("http://", "https://")) else None,
    )
