"""What is logged to an MLflow run, logged to Weights & Biases too."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import UserError, first_line
from .run_log import TrainingLog

STEP = "step"


@contextmanager
def mirrored(
    log: TrainingLog, report_to: Sequence[str], project: str | None, name: str, tags: Mapping[str, str]
) -> Iterator[TrainingLog]:
    """The run's log; with "wandb" among `report_to`, one that also logs to Weights & Biases.

    The run there has the id of MLflow's run, so that a resumed run goes on in both. project: the MLflow experiment.
    name: the run's name. WANDB_MODE, WANDB_DIR and the rest of wandb's environment apply. UserError if the run there
    cannot be started.
    """
    if "wandb" not in report_to:
        yield log
        return
    import wandb

    try:
        remote = wandb.init(
            project=project,
            name=name,
            id=log.id,
            resume="allow",
            tags=[tags[key] for key in ("technique", "task") if tags.get(key)],
            config=dict(tags),
            settings=wandb.Settings(console="off", silent=True),
        )
    except (wandb.Error, OSError) as error:
        raise UserError(
            f"--report_to wandb: {first_line(error)} Log in with `wandb login`, or set WANDB_MODE=offline."
        ) from None
    # A resumed run repeats steps, which the default axis would refuse.
    remote.define_metric(STEP)
    remote.define_metric("*", step_metric=STEP)
    try:
        yield Mirrored(log, remote)
    except BaseException:
        remote.finish(exit_code=1)
        raise
    remote.finish()


class Mirrored:
    """A `TrainingLog` that passes everything on to another one, and parameters, curves, final figures and pictures also to
    a run of Weights & Biases."""

    def __init__(self, log: TrainingLog, remote: Any):
        self._log, self._remote = log, remote

    @property
    def id(self) -> str:
        return self._log.id

    def log_params(self, values: Mapping[str, object]) -> None:
        self._log.log_params(values)
        self._remote.config.update(dict(values), allow_val_change=True)

    def log_metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        self._log.log_metrics(values, step)
        if step is None:
            self._remote.summary.update(_finite(values))
        elif finite := _finite(values):
            self._remote.log(finite | {STEP: step})

    def set_tags(self, tags: Mapping[str, object]) -> None:
        self._log.set_tags(tags)

    def log_data(self, record: Mapping[str, Any], context: str = "training") -> None:
        self._log.log_data(record, context)

    def log_dict(self, content: dict | list, file: str) -> None:
        self._log.log_dict(content, file)

    def log_text(self, text: str, file: str) -> None:
        self._log.log_text(text, file)

    def log_figure(self, figure: Any, file: str) -> None:
        self._log.log_figure(figure, file)
        import numpy as np
        import wandb

        figure.canvas.draw()
        self._remote.log({file.rsplit(".", 1)[0]: wandb.Image(np.asarray(figure.canvas.buffer_rgba()))})

    def log_artifact(self, path: Path) -> None:
        self._log.log_artifact(path)

    def log_model(
        self, bundle: Path, base: Path | None, example: Mapping[str, str], metrics: Mapping[str, float]
    ) -> None:
        self._log.log_model(bundle, base, example, metrics)
        self._remote.summary.update(_finite(metrics))


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}
