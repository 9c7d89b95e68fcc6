"""What a training logs to: an MLflow run, its journal, a mirror of them, or nothing, all with the same methods."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class RunLog(Protocol):
    """A run that parameters, curves, tags, data and files are logged to."""

    @property
    def id(self) -> str:
        """The MLflow run's id."""
        ...

    def log_params(self, values: Mapping[str, object]) -> None:
        """Log parameters; those that the run has already keep their values."""
        ...

    def log_metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers: points of curves at a step, or figures of the whole run without one."""
        ...

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags."""
        ...

    def log_data(self, record: Mapping[str, Any], context: str = "training") -> None:
        """Log the part of the data that the context names: training, validation or testing."""
        ...

    def log_dict(self, content: dict | list, file: str) -> None:
        """Store content as JSON or YAML, as the file's suffix says."""
        ...

    def log_text(self, text: str, file: str) -> None:
        """Store a text."""
        ...

    def log_figure(self, figure: Any, file: str) -> None:
        """Store a matplotlib figure; the suffix of the file is its format."""
        ...

    def log_artifact(self, path: Path) -> None:
        """Store a file, or a folder with all that is in it; a log may take it away from where it lies."""
        ...


class TrainingLog(RunLog, Protocol):
    """A run log that takes the trained model too."""

    def log_model(
        self, bundle: Path, base: Path | None, example: Mapping[str, str], metrics: Mapping[str, float]
    ) -> None:
        """Store a saved model, the base that it needs (None where it holds its own), a request and its test scores.

        A log may take both folders away from where they lie.
        """
        ...


class Silent:
    """The `TrainingLog` of every process but the first: it logs nothing."""

    id = ""

    def log_params(self, values: Mapping[str, object]) -> None:
        pass

    def log_metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        pass

    def set_tags(self, tags: Mapping[str, object]) -> None:
        pass

    def log_data(self, record: Mapping[str, Any], context: str = "training") -> None:
        pass

    def log_dict(self, content: dict | list, file: str) -> None:
        pass

    def log_text(self, text: str, file: str) -> None:
        pass

    def log_figure(self, figure: Any, file: str) -> None:
        pass

    def log_artifact(self, path: Path) -> None:
        pass

    def log_model(
        self, bundle: Path, base: Path | None, example: Mapping[str, str], metrics: Mapping[str, float]
    ) -> None:
        pass
