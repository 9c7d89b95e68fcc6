"""`compare`: the comparison of an experiment's runs as a table and a figure."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..scoring.names import LABELS
from .pages import html_figure, html_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from ..tracking.compared import Compared


@dataclass(frozen=True, repr=False)
class Comparison:
    """Finished runs for one task on the same test examples; a notebook shows the table and the figure."""

    compared: "Compared"

    @property
    def table(self) -> "pd.DataFrame":
        """A row of numbers for each run, the best one first: `test_f1` with `test_f1_low` and `test_f1_high` (95%, in
        percent), `f1_difference` to the best with its interval and the paired test's `f1_p`, sizes and times."""
        return self.compared.table

    @property
    def shown(self) -> "pd.DataFrame":
        """The same as texts, as `scripts/compare.py` prints it."""
        from ..tracking import comparison

        return comparison.display(self.compared.table, self.compared.task)

    @property
    def figure(self) -> "Figure":
        """The deciding test score against trainable parameters."""
        from ..reports import run_figures

        return run_figures.f1_against_parameters(self.compared.table, self.compared.task.metric)

    def __repr__(self) -> str:
        return self.compared.as_text()

    def _repr_html_(self) -> str:
        from ..tracking import comparison

        task = self.compared.task
        title, note = html_text(self.compared.title), html_text(comparison.note(task))
        left_out = "".join(f"<p>Left out: {html_text(line)}</p>" for line in self.compared.left_out)
        picture = html_figure(self.figure, f"test {LABELS[task.metric]} against trainable parameters")
        return f"<p><b>{title}</b></p>{self.shown.to_html(index=False)}<p>{note}</p>{left_out}{picture}"


def compare(
    experiment_name: str | None = None,
    *,
    task: str | None = None,
    data_fingerprint: str | None = None,
    all_runs: bool = False,
) -> Comparison:
    """Compare the finished runs of an MLflow experiment, as `scripts/compare.py` does.

    experiment_name: None stands for MLFLOW_EXPERIMENT_NAME, else the task's. task, data_fingerprint: which runs; None stands
    for the newest run's, and the first characters of a fingerprint suffice. all_runs: not only the latest run of each
    technique and checkpoint. UserError if there is nothing to compare.
    """
    from ..tracking.compared import compare_experiment

    return Comparison(compare_experiment(experiment_name, task, data_fingerprint, all_runs))
