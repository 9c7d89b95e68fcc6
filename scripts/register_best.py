"""Register the best finished run as a version of its task's model (bert-squad-qa, imdb-sentiment), ready to serve.

The candidate is the run with the highest validation F1 (or accuracy) on one data set; test scores never choose it. It
becomes champion if it passes the gate, else challenger; the tags and the page of its version give the reasons:

  1. It loads in a fresh process without the hub, and answers a sample of the test questions as it did in training.
  2. Its median latency for single questions is within --max_latency_ms, if that is given.
  3. On the same test questions it is better than the champion: the paired bootstrap interval of the difference is above 0.
     Or it is not worse by more than --tolerance points, and cheaper by --cheaper_latency or --cheaper_size.
  4. No slice of the questions (type, length of answer and context, unanswerable; or label and length of a text) loses
     more than --max_slice_loss points.
  5. On the test part of each folder of prepared data that --also_on names, it is not worse than the champion by more than the
     points behind the name: the paired bootstrap interval of the difference lies above that.
  6. It answers every question of the file --must_pass right (exact match; or the right label).

The first version needs only 1, 2 and 6. So does a version whose champion was trained on other data, because those scores
cannot be compared. An analysis of the run's errors is logged into its artifacts, error_analysis/. A second call changes
nothing, except that a challenger is judged again by the rules of that call.
"""

import _path  # noqa: F401  # isort: skip
import sys
from pathlib import Path

from common.cli import Parser, guarded, importing
from common.errors import UserError
from common.registry import reporting
from common.registry.gate import check
from common.registry.options import add_rules, rules_of
from common.tasks.table import DEFAULT_TASK, TASKS, task_of

EXAMPLES = """examples:
  python scripts/register_best.py --dry_run --explain
      shows every check and figure, and writes nothing
  python scripts/register_best.py --cheaper_latency 0.3 --tolerance 0.5
      a candidate that is a third faster may be half a point worse
  python scripts/register_best.py --also_on other_data:1.0 --must_pass golden.jsonl
      at most a point less on other data, and every question of a file right
  python scripts/register_best.py --rollback
      the previous champion is champion again; repeat it for the one before
"""


def parser() -> Parser:
    made = Parser(description=__doc__, epilog=EXAMPLES)
    chosen = made.add_argument_group("which run")
    chosen.add_argument(
        "--experiment_name",
        help="MLflow experiment to choose from (default: MLFLOW_EXPERIMENT_NAME, else squad-qa, or the task's)",
    )
    chosen.add_argument(
        "--task", choices=tuple(TASKS), help="choose among the runs for this task (default: the newest run's)"
    )
    chosen.add_argument(
        "--data_fingerprint",
        metavar="SHA256",
        help="choose among the runs on this data; the first characters suffice (default: the newest run's data)",
    )
    chosen.add_argument(
        "--data_dir",
        type=Path,
        metavar="DIR",
        help="prepared data whose test questions are asked again (default: the folder that the run was trained from)",
    )
    add_rules(made)
    doing = made.add_argument_group("what is done")
    doing.add_argument(
        "--dry_run", action="store_true", help="print what would happen, and write nothing to the store"
    )
    doing.add_argument(
        "--export",
        choices=("onnx",),
        help="also register the version for ONNX Runtime, in fp32 and int8, once both answer the test data as it does",
    )
    doing.add_argument(
        "--name",
        help="with --rollback: the registered model to roll back (default: the task's; runs say the name of theirs)",
    )
    doing.add_argument("--explain", action="store_true", help="print every check and figure")
    doing.add_argument(
        "--rollback",
        action="store_true",
        help="make the previous champion champion again; this script does not promote the rolled-back version again",
    )
    return made


def main() -> None:
    args = parser().parse_args()
    if args.rollback:
        from common.registry import register

        name = args.name or task_of(args.task or DEFAULT_TASK).registered
        before, after = register.rollback(name, args.dry_run)
        print(reporting.rolled_back(name, before, after, args.dry_run))
        return
    if args.name is not None:
        raise UserError(
            "--name is the registered model to roll back: give it with --rollback. Runs say the name of theirs."
        )
    rules = rules_of(args)
    # Before the libraries are imported, because that takes seconds.
    check(rules)
    with importing():
        from common.registry import register
        from common.registry.demands import AlsoOn, Demands
        from common.tracking import experiments, store

    demands = Demands(tuple(map(AlsoOn.parse, args.also_on)), args.must_pass)
    store.configure()
    experiment = experiments.experiment_name(
        args.experiment_name, task_of(args.task or DEFAULT_TASK).experiment
    )
    done = register.register_best(
        experiment, args.data_fingerprint, args.data_dir, args.task, rules, args.dry_run, demands
    )
    if args.explain:
        print("\n".join([*done.figures, ""]) if done.figures else "Nothing was judged.")
    for note in done.notes:
        print(note)
    if args.dry_run:
        print(reporting.foreseen(done))
        return
    if args.export:
        from common.registry.onnx_versions import export_version

        lines = export_version(done.task, str(done.version), args.data_dir, done.name)
        print("\n".join(["ONNX Runtime:", *lines]))
    print(reporting.registered(done))


if __name__ == "__main__":
    sys.exit(guarded(main))
