"""Run a study: every row of a YAML file that declares techniques, grids, seeds and stages, each row in its own process.

The rows are children of one MLflow run. A finished row is never trained again, even if another command trained it; an
interrupted study continues. results/STUDY/ holds study.csv, the report, and the files of each row.

`--backend ray` (pip install -r requirements-ray.txt) trains as many rows at a time as fit, on this machine or on the Ray
cluster at --address; each row requests the `resources` of its stage. All machines must see this folder and the results
under the same path, and reach one MLflow store (MLFLOW_TRACKING_URI). If a worker dies, its row continues from the last
checkpoint on another worker.
"""

import _path  # noqa: F401  # isort: skip
import os
import shlex
import sys
from pathlib import Path

from common.api.technique_scripts import technique_scripts
from common.cli import Parser, guarded, importing
from common.paths import ROOT, interpreter
from common.studies import backends
from common.studies.folder import Folder
from common.studies.row_starter import Starter

EXAMPLES = """examples:
  python scripts/study.py studies/bert_six_techniques.yaml --dry_run    # the rows, their status, the remaining time
  python scripts/study.py studies/bert_six_techniques.yaml --smoke      # minutes on two cores, to see that it runs
  python scripts/study.py studies/bert_six_techniques.yaml
  python scripts/study.py studies/lora_search.yaml --backend ray        # searches, stops bad trials early
  python scripts/study.py studies/lora_search.yaml --backend ray --address HEAD:6379      # on many machines
"""


def parser() -> Parser:
    made = Parser(description=__doc__, epilog=EXAMPLES)
    made.add_argument(
        "study", type=Path, metavar="STUDY.yaml", help="the study to run; studies/ holds examples"
    )
    made.add_argument(
        "--output_dir",
        type=Path,
        metavar="DIR",
        default=ROOT / "results",
        help="where the study's folder is created (default: results/ in the project)",
    )
    rows = made.add_argument_group("which rows")
    rows.add_argument("--dry_run", action="store_true", help="show the rows and train nothing")
    rows.add_argument("--smoke", action="store_true", help="apply the file's `smoke` section over the rest")
    rows.add_argument("--retry_failed", action="store_true", help="train failed rows again")
    rows.add_argument(
        "--smallest_difference",
        type=float,
        metavar="POINTS",
        help="of a study that stops when it knows (`stop`): a technique or rate that cannot win by this many points "
        "any more gets no more seeds (default: the file's)",
    )
    where = made.add_argument_group("where they are trained")
    where.add_argument(
        "--backend",
        choices=backends.BACKENDS,
        default=backends.LOCAL,
        help="local: one row after another (default); ray: Ray Tune, as many rows at a time as fit",
    )
    where.add_argument(
        "--address", metavar="HOST:PORT", help="the Ray cluster; default: Ray starts on this machine"
    )
    return made


def main() -> None:
    args = parser().parse_args()
    # Imported late, because --help should be quick: these take seconds.
    with importing():
        from common.studies import declaration

    techniques = technique_scripts()
    study = declaration.read(args.study, {key: kind for key, (kind, _) in techniques.items()}, args.smoke)
    if args.smallest_difference is not None:
        study = declaration.with_smallest_difference(study, args.smallest_difference)
    backends.check(study, args.backend, args.address, args.dry_run)
    with Starter() as starter:
        forks = args.backend == backends.LOCAL and not args.dry_run
        if forks and "reported" not in Folder(args.output_dir / study.name).state:
            # Its imports take as long as those below. A study with a report may have nothing left to train.
            starter.open()
        with importing():
            from common.studies import launch

        if args.dry_run:
            print(launch.show(study, args.output_dir))
            return
        scripts = {key: file for key, (_, file) in techniques.items()}
        try:
            failed = launch.run(
                study, args.output_dir, scripts, args.backend, args.address, args.retry_failed, starter
            )
        except (KeyboardInterrupt, SystemExit):
            print(f"\nStopped. To continue: {shlex.join([interpreter(), *sys.argv])}", file=sys.stderr)
            raise
    if failed:
        print(f"\n{failed}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(guarded(main))
