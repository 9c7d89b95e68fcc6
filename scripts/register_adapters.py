"""Register the best run of each technique as one model, bert-squad-qa-all, which holds their base once.

A request names a technique ("params": {"technique": "LoRA"}), or "all" to get the answers of all side by side. The best run
of all, by validation F1, decides the base and the data. Each adapter must answer a sample of the test questions as its run
did. A second call changes nothing.
"""

import sys
from pathlib import Path

import _path  # noqa: F401

from common.cli import Parser, guarded
from common.tasks.table import DEFAULT_TASK, task_of


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--experiment_name",
        help="MLflow experiment to choose from (default: MLFLOW_EXPERIMENT_NAME, else squad-qa)",
    )
    parser.add_argument(
        "--data_fingerprint",
        metavar="SHA256",
        help="choose among the runs on this data; the first characters suffice (default: the newest run's data)",
    )
    parser.add_argument(
        "--data_dir",
        type=Path,
        metavar="DIR",
        help="prepared data whose test questions are asked again (default: the folder that the best run was trained from)",
    )
    args = parser.parse_args()

    from common.registry import adapter_set, reporting
    from common.tracking import experiments, store

    store.configure()
    experiment = experiments.experiment_name(args.experiment_name, task_of(DEFAULT_TASK).experiment)
    done = adapter_set.register_adapters(experiment, args.data_fingerprint, args.data_dir)
    for note in done.notes:
        print(note)
    for technique, run_id in done.runs.items():
        print(f"  {technique}: run {run_id}")
    print(f"{done.name} version {done.version}{'' if done.is_new else ' (nothing to do)'}\n")
    print(reporting.how_to_serve(f"models:/{done.name}/{done.version}"))


if __name__ == "__main__":
    sys.exit(guarded(main))
