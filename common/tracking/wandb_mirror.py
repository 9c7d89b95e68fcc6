"""What MLflow is told of a run, told to Weights & Biases too."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ..errors import UserError, first_line

STEP = "step"


@contextmanager
def mirrored(run, args, technique: str, tags: Mapping[str, str]) -> Iterator:
    """The run; or, where the RunArgs have `--report_to wandb`, one that does the same and tells Weights & Biases.

    The run there has the id of MLflow's, so that a resumed run goes on in both; its project is the MLflow experiment.
    WANDB_MODE, WANDB_DIR and the rest of its environment are heeded. UserError if it cannot be started.
    """
    if "wandb" not in args.report_to:
        yield run
        return
    import wandb

    try:
        theirs = wandb.init(
            project=args.experiment_name,
            name=args.run_name or technique,
            id=run.id,
            resume="allow",
            tags=[tags[name] for name in ("technique", "task") if tags.get(name)],
            config=dict(tags),
            settings=wandb.Settings(console="off", silent=True),
        )
    except (wandb.Error, OSError) as error:
        raise UserError(
            f"--report_to wandb: {first_line(error)} Log in with `wandb login`, or set WANDB_MODE=offline."
        ) from None
    # A resumed run repeats steps, which the default axis would refuse.
    theirs.define_metric(STEP)
    theirs.define_metric("*", step_metric=STEP)
    try:
        yield Mirrored(run, theirs)
    except BaseException:
        theirs.finish(exit_code=1)
        raise
    theirs.finish()


class Mirrored:
    """A `tracking.Run` that tells another tracker of parameters, curves, final figures and pictures."""

    def __init__(self, run, theirs):
        self._run, self._theirs = run, theirs

    def __getattr__(self, name):
        return getattr(self._run, name)

    def log_params(self, values: Mapping[str, object]) -> None:
        self._run.log_params(values)
        self._theirs.config.update(dict(values), allow_val_change=True)

    def log_metrics(self, values: Mapping[str, float], step: int | None = None, **kwargs) -> None:
        self._run.log_metrics(values, step=step, **kwargs)
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        if step is None:
            self._theirs.summary.update(finite)
        elif finite:
            self._theirs.log(finite | {STEP: step})

    def log_model(self, bundle, base, example, metrics: Mapping[str, float]) -> None:
        self._run.log_model(bundle, base, example, metrics)
        self._theirs.summary.update(
            {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        )

    def log_figure(self, figure, file: str) -> None:
        self._run.log_figure(figure, file)
        import numpy as np
        import wandb

        figure.canvas.draw()
        self._theirs.log({file.rsplit(".", 1)[0]: wandb.Image(np.asarray(figure.canvas.buffer_rgba()))})
