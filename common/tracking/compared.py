"""The finished runs of an experiment, chosen and compared: as text, and as files."""

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..counts import count_of
from ..errors import UserError
from ..paths import command
from ..reports import result_tables, run_figures
from ..reports.text_tables import to_markdown, to_text
from ..scoring.names import LABELS
from ..tasks.interface import Task
from ..tasks.table import DEFAULT_TASK, task_of
from . import comparison, decisive, experiments, provenance, runs, store


@dataclass(frozen=True)
class Compared:
    """Runs for one task on the same test examples."""

    table: pd.DataFrame
    """A row for each run, the best one first; columns as `comparison.columns` names them."""
    task: Task
    experiment: str
    decisive: list[str]
    """What the test data can show, and what would decide each tie with the best run; a sentence each."""
    left_out: list[str]
    """A sentence for each run of this task and data that is not compared."""
    other_tasks: list[str]
    """A line for each other task that the experiment has runs for."""
    other_data: list[str]
    """A line for each other data set that it has runs on."""

    @property
    def title(self) -> str:
        """Such as "squad (v1.1), 10,570 test questions"."""
        first = self.table.iloc[0]
        tested = count_of(first["test_examples"], f"test {self.task.unit}")
        return f"{first['data_name']} ({first['data_version']}), {tested}"

    def as_text(self) -> str:
        """Scores, costs and what was left out, for a terminal."""
        shown = comparison.display(self.table, self.task)
        quality = [name for name in comparison.score_columns(self.task) if name in shown]
        costs = ["technique", *(name for name in shown if name not in quality)]
        fingerprint = self.table.iloc[0]["data_fingerprint"][:12]
        parts = [
            f"{self.title}; data {fingerprint}; experiment {self.experiment}",
            to_text(shown[quality]),
            to_text(shown[costs]),
            comparison.note(self.task),
        ]
        notes = {
            "What this test data can show:": self.decisive,
            "Other tasks in this experiment:": self.other_tasks,
            "Left out:": self.left_out,
            "Other data in this experiment, to be compared with:": self.other_data,
        }
        parts += ["\n  ".join([heading, *lines]) for heading, lines in notes.items() if lines]
        return "\n\n".join(parts)

    def write(self, folder: Path) -> list[str]:
        """Write comparison.md, comparison.csv and the figure into a folder; their names. OSError where it cannot be written."""
        picture = f"{self.task.metric}_against_parameters.png"
        figure = run_figures.f1_against_parameters(self.table, self.task.metric)
        folder.mkdir(parents=True, exist_ok=True)
        self.table.to_csv(folder / "comparison.csv", index=False, float_format="%.10g")
        figure.savefig(folder / picture)
        (folder / "comparison.md").write_text(
            f"# {self.title}\n\n{to_markdown(comparison.display(self.table, self.task))}\n{comparison.note(self.task)}\n\n"
            f"{''.join(f'- {line}' + chr(10) for line in self.decisive)}\n"
            f"Data fingerprint `{self.table.iloc[0]['data_fingerprint']}`, MLflow experiment `{self.experiment}`.\n\n"
            f"![Test {LABELS[self.task.metric]} against trainable parameters]({picture})\n",
            encoding="utf-8",
        )
        return ["comparison.md", "comparison.csv", picture]

    def write_rows(self, file: Path) -> None:
        """Write the table as the rows of a result's file, as `result_tables` describes it: fields as `comparison.columns`
        names them. UserError where the file's columns have other ones."""
        measured = provenance.of_command()
        # Machine and libraries are those of the runs, whose artifacts name them.
        about: dict[str, Any] = {name: measured[name] for name in ("command", "commit", "date")} | {
            "data": self.title,
            "data_fingerprint": str(self.table.iloc[0]["data_fingerprint"]),
            "seeds": sorted({int(seed) for seed in self.table["seed"].dropna()}),
            "runs": list(self.table["run_id"]),
        }
        rows: list[dict[Hashable, Any]] = self.table.to_dict("records")
        result_tables.save(
            file,
            [{str(name): value for name, value in row.items()} for row in rows],
            about,
        )


def compare_experiment(
    experiment_name: str | None = None,
    task: str | None = None,
    data_fingerprint: str | None = None,
    all_runs: bool = False,
) -> Compared:
    """Compare the finished runs of an MLflow experiment; UserError if there is nothing to compare.

    experiment_name: None stands for MLFLOW_EXPERIMENT_NAME, else the task's. task, data_fingerprint: which runs; None stands
    for the newest run's, and the first characters of a fingerprint suffice. all_runs: not only the latest run of each
    technique and checkpoint.
    """
    store.configure()
    experiment = experiments.experiment_name(experiment_name, task_of(task or DEFAULT_TASK).experiment)
    found = runs.finished_runs(experiment)
    if found.empty:
        raise UserError(_nothing_to_compare(experiment, runs.experiments_with_runs()))
    found, of_task, other_tasks = runs.of_task(found, task)
    found, other_data = comparison.choose_data(found, data_fingerprint)
    chosen, scores, left_out = comparison.choose_runs(found, runs.predictions, all_runs, of_task)
    table = comparison.compare(chosen, scores, of_task)
    lines = decisive.sentences(table, scores, of_task)
    return Compared(table, of_task, experiment, lines, left_out, other_tasks, other_data)


def _nothing_to_compare(experiment_name: str, elsewhere: list[str]) -> str:
    """What to do where an experiment holds no finished run."""
    message = f"The experiment {experiment_name!r} holds no finished run."
    if elsewhere:
        return f"{message} There are some in: {', '.join(elsewhere)} (choose with --experiment_name)."
    return f"{message} Train first, for example: {command('bert_fine_tuning_LoRA.py')}"
