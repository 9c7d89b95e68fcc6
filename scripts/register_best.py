"""Register the best finished run as a version of its task's model (bert-squad-qa, imdb-sentiment), ready to be served.

The candidate is the run with the highest validation F1 (or accuracy) on one data set; test scores never choose it. It
becomes champion if it passes the gate, else challenger; the tags and the page of its version give the reasons:

  1. It loads in a fresh process without the hub, and answers a sample of the test questions as it did in training.
  2. Asked one question at a time it stays under --max_latency_ms (median), if that is given.
  3. On the same test questions it is better than the champion: the paired bootstrap interval of the difference is above 0.
     Or it is not worse by more than --tolerance points, and cheaper by --cheaper_latency or --cheaper_size.
  4. No slice of the questions (type, length of answer and context, unanswerable; or label and length of a text) has
     lost more than --max_slice_loss points.

The first version needs 1 and 2 only, as does a version whose champion is on other data: scores on other data cannot be
compared. The run's errors are logged into its artifacts, error_analysis/. Running this twice changes nothing, except that a
challenger is judged again, by the rules of the second call.
"""

import _path  # noqa: F401  # isort: skip
import argparse
import sys
from dataclasses import fields
from pathlib import Path

from common.bounds import bounds_of
from common.cli import Parser, guarded
from common.registry import reporting
from common.registry.gate import Rules, check
from common.tasks.table import DEFAULT_TASK, TASKS, task_of

EXAMPLES = """examples:
  python scripts/register_best.py --dry_run --explain
      every check and figure; nothing is written
  python scripts/register_best.py --cheaper_latency 0.3 --tolerance 0.5
      a third faster and half a point worse will do
  python scripts/register_best.py --rollback
      the champion before is champion again; repeated: the one before that
"""


def parser() -> Parser:
    made = Parser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
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
        help="choose among the runs on this data; its first characters suffice (default: the newest run's data)",
    )
    chosen.add_argument(
        "--data_dir",
        type=Path,
        metavar="DIR",
        help="the prepared data, whose test questions are asked again (default: the folder the run was trained from)",
    )
    rules = made.add_argument_group("what a champion must do")
    for name, kind, metavar, text in (
        ("confidence", float, "SHARE", "of the intervals by which it is compared"),
        ("tolerance", float, "POINTS", "that a cheaper one may be worse by, at that confidence"),
        (
            "cheaper_latency",
            float,
            "SHARE",
            "of the champion's median latency to be saved to count as cheaper, such as 0.3; both are measured now",
        ),
        ("cheaper_size", float, "SHARE", "of the champion's size to be saved to count as cheaper"),
        ("max_latency_ms", float, "MS", "bound for the median latency of single requests on this machine"),
        ("max_slice_loss", float, "POINTS", "that no slice may have lost, at that confidence"),
        ("min_slice", int, "EXAMPLES", "that a slice needs to be judged"),
    ):
        default, bounds = getattr(Rules(), name), bounds_of(Rules)[name]
        shown = "does not count" if default is None and "cheaper" in name else default
        shown = "none" if shown is None else shown
        rules.add_argument(
            f"--{name}",
            type=kind,
            metavar=metavar,
            default=default,
            help=f"{text} ({bounds}; default: {shown})",
        )
    doing = made.add_argument_group("what is done")
    doing.add_argument(
        "--dry_run", action="store_true", help="print what would happen, and write nothing to the store"
    )
    doing.add_argument(
        "--export",
        choices=("onnx",),
        help="also register the version for ONNX Runtime, in fp32 and int8, once both have answered the test data as it does",
    )
    doing.add_argument(
        "--name", help="the registered model to roll back (default: the task's; runs say the name of theirs)"
    )
    doing.add_argument("--explain", action="store_true", help="print every check and figure")
    doing.add_argument(
        "--rollback",
        action="store_true",
        help="make the champion before champion again; what is rolled back is not promoted again by this script",
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
    rules = Rules(**{field.name: getattr(args, field.name) for field in fields(Rules)})
    # Before the libraries are imported, which takes seconds.
    check(rules)
    from common.registry import register
    from common.tracking import experiments, store

    store.configure()
    experiment = experiments.experiment_name(
        args.experiment_name, task_of(args.task or DEFAULT_TASK).experiment
    )
    done = register.register_best(
        experiment, args.data_fingerprint, args.data_dir, args.task, rules, args.dry_run
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
