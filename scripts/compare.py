"""Compare the finished runs of an experiment: a table, and the figure F1 (or accuracy) against trainable parameters.

Only runs for the same task, on the same data and the same test questions (or texts) are compared. By default that is
the task and the data of the newest run, and the latest run of each technique and checkpoint. Writes comparison.csv,
comparison.md and f1_against_parameters.png (or accuracy_against_parameters.png).
"""

import argparse
import sys
from pathlib import Path

import _path  # noqa: F401

from common.cli import Parser, guarded
from common.errors import UserError
from common.paths import ROOT, command
from common.scoring.names import LABELS
from common.tasks.table import DEFAULT_TASK, TASKS, task_of


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--experiment_name",
        help="MLflow experiment (default: MLFLOW_EXPERIMENT_NAME, else squad-qa, or the task's)",
    )
    parser.add_argument(
        "--task", choices=tuple(TASKS), help="compare the runs for this task (default: the newest run's)"
    )
    parser.add_argument(
        "--output_dir",
        type=Path,
        metavar="DIR",
        help="where the files go (default: results/compare in the project)",
    )
    parser.add_argument(
        "--data_fingerprint",
        metavar="SHA256",
        help="compare the runs on this data; its first characters suffice (default: the newest run's data)",
    )
    parser.add_argument(
        "--all_runs",
        action="store_true",
        help="every run, not only the latest of each technique and checkpoint",
    )
    args = parser.parse_args()

    from common.reports import run_figures
    from common.reports.text_tables import to_markdown, to_text
    from common.tracking import comparison, experiments, store
    from common.tracking import runs as tracking

    store.configure()
    experiment = experiments.experiment_name(
        args.experiment_name, task_of(args.task or DEFAULT_TASK).experiment
    )
    runs = tracking.finished_runs(experiment)
    if runs.empty:
        raise UserError(nothing_to_compare(experiment, tracking.experiments_with_runs()))
    runs, task, other_tasks = tracking.of_task(runs, args.task)
    runs, other_data = comparison.choose_data(runs, args.data_fingerprint)
    chosen, scores, left_out = comparison.choose_runs(runs, tracking.predictions, args.all_runs, task)
    table = comparison.compare(chosen, scores, task)
    shown = comparison.display(table, task)

    first = table.iloc[0]
    title = f"{first['data_name']} ({first['data_version']}), {first['test_examples']:.0f} test {task.unit}"
    print(f"{title}; data {first['data_fingerprint'][:12]}; experiment {experiment}\n")
    quality, note = comparison.score_columns(task), comparison.note(task)
    costs = [name for name in shown if name not in quality]
    print(to_text(shown[list(quality)]), end="\n\n")
    print(to_text(shown[["technique", *costs]]), end="\n\n")
    print(note)
    listed("Other tasks in this experiment:", other_tasks)
    listed("Left out:", left_out)
    listed("Other data in this experiment, to be compared with:", other_data)

    output_dir = args.output_dir or ROOT / "results" / "compare"
    figure, picture = (
        run_figures.f1_against_parameters(table, task.metric),
        f"{task.metric}_against_parameters.png",
    )
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        table.to_csv(output_dir / "comparison.csv", index=False, float_format="%.10g")
        figure.savefig(output_dir / picture)
        (output_dir / "comparison.md").write_text(
            f"# {title}\n\n{to_markdown(shown)}\n{note}\n\n"
            f"Data fingerprint `{first['data_fingerprint']}`, MLflow experiment `{experiment}`.\n\n"
            f"![Test {LABELS[task.metric]} against trainable parameters]({picture})\n",
            encoding="utf-8",
        )
    except OSError as error:
        reason = f"--output_dir {output_dir}: {error.strerror}: {error.filename}."
        if args.output_dir:
            raise UserError(reason) from None
        # The table was what was asked for; in a project that cannot be written it has no files.
        print(f"\nNo files are written: {reason} Choose another one to have them.", file=sys.stderr)
        return
    print(f"\nWritten to {output_dir}: comparison.md, comparison.csv, {picture}")


def nothing_to_compare(experiment_name: str, elsewhere: list[str]) -> str:
    """What to do where an experiment holds no finished run."""
    message = f"The experiment {experiment_name!r} holds no finished run."
    if elsewhere:
        return f"{message} There are some in: {', '.join(elsewhere)} (choose with --experiment_name)."
    return f"{message} Train first, for example: {command('bert_fine_tuning_LoRA.py')}"


def listed(heading: str, lines: list[str]) -> None:
    if lines:
        print("\n" + "\n  ".join([heading, *lines]))


if __name__ == "__main__":
    sys.exit(guarded(main))
