"""Find out which technique to take for your own data: a small sweep, by successive halving.

First every technique is trained at three learning rates on a ninth of the training questions (or texts), then the best
third of them on a third of the data, then the best two on all of it. All decisions are made on the validation set. The
advice says which technique to take with which command line, how sure that is (paired tests on the same validation
questions, with Holm's correction), what was excluded and why, and what more data would bring.

Each rung is a study (docs/STUDIES.md): no finished run is trained again, and the same line goes on after an
interruption. results/advice-.../ holds the rungs and advice.json, their notes.
"""

import _path  # noqa: F401  # isort: skip
import argparse
import os
import shlex
import sys
from pathlib import Path

from common.api.technique_scripts import technique_scripts
from common.bounds import SEEDS, number
from common.cli import Parser, guarded
from common.errors import UserError
from common.files import write_json
from common.paths import ROOT, interpreter
from common.studies import backends
from common.tasks.table import DEFAULT_TASK, TASKS

EXAMPLES = """examples:
  python scripts/advise.py --data_dir my_data
  python scripts/advise.py --data_dir my_data --techniques lora bitfit ia3 --budget_minutes 60
  python scripts/advise.py --data_dir my_data --max_latency_ms 30 --max_size_mb 5 --json advice.json
  python scripts/advise.py --data_dir reviews --task classification --model_checkpoint embedded-distilbert
  python scripts/advise.py --data_dir my_data --backend ray --address HEAD:6379
"""


def parser() -> Parser:
    made = Parser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "--data_dir", metavar="DIR", required=True, help="prepared data (see scripts/prepare_data.py)"
    )
    made.add_argument("--task", choices=tuple(TASKS), default=DEFAULT_TASK, help="default: %(default)s")
    made.add_argument(
        "--model_checkpoint",
        default="auto",
        metavar="NAME",
        help="the base, as the scripts take it (default: auto)",
    )
    made.add_argument(
        "--techniques",
        nargs="+",
        metavar="KEY",
        default=[],
        help=f"which ones to try, of {', '.join(technique_scripts())} (default: all that work with the model)",
    )
    made.add_argument(
        "--config",
        type=Path,
        metavar="FILE.yaml",
        help="further fields of every run, as the scripts take them (max_length, batch_size, num_train_epochs, ...)",
    )
    made.add_argument(
        "--seed", type=number(minimum=0, maximum=SEEDS), default=42, help="default: %(default)s"
    )
    limits = made.add_argument_group("what you can afford")
    limits.add_argument(
        "--max_latency_ms",
        type=number(float, above=0),
        metavar="MS",
        help="longest median time of one request, measured on this machine on the stored model",
    )
    limits.add_argument(
        "--max_size_mb",
        type=number(float, above=0),
        metavar="MIB",
        help="most MiB that a technique's trained weights take (an adapter, or a whole model)",
    )
    limits.add_argument(
        "--budget_minutes",
        type=number(float, above=0),
        metavar="MINUTES",
        help="training time of all runs together; fewer rates, fewer techniques or less data are tried to keep to it",
    )
    limits.add_argument(
        "--smallest_difference",
        type=number(float, minimum=0),
        metavar="POINTS",
        default=1.0,
        help="differences below it do not count: then the technique that stores less is taken (default: %(default)s)",
    )
    where = made.add_argument_group("where it is trained and written")
    where.add_argument(
        "--backend", choices=backends.BACKENDS, default=backends.LOCAL, help="as in study.py (default: local)"
    )
    where.add_argument("--address", metavar="HOST:PORT", help="the Ray cluster; default: Ray starts here")
    where.add_argument(
        "--output_dir",
        type=Path,
        metavar="DIR",
        default=ROOT / "results",
        help="where the folder of the rungs is created (default: results/ in the project)",
    )
    where.add_argument("--json", type=Path, metavar="FILE", help="also write the advice as JSON")
    return made


def main() -> None:
    args = parser().parse_args()
    if args.backend != backends.RAY and args.address:
        raise UserError("--address is for --backend ray.")
    if args.json and not args.json.absolute().parent.is_dir():
        raise UserError(f"--json {args.json}: there is no folder {args.json.absolute().parent}.")
    from common.api import advising

    asked = advising.wishes(
        args.data_dir,
        args.techniques,
        task=args.task,
        model_checkpoint=args.model_checkpoint,
        fields_file=args.config,
        max_latency_ms=args.max_latency_ms,
        max_size_mb=args.max_size_mb,
        budget_minutes=args.budget_minutes,
        smallest_difference=args.smallest_difference,
        seed=args.seed,
    )
    try:
        found = advising.advise(asked, args.output_dir, args.backend, args.address)
    except (KeyboardInterrupt, SystemExit):
        print(f"\nStopped. To continue: {shlex.join([interpreter(), *sys.argv])}", file=sys.stderr)
        raise
    from common.studies import advice

    print("\nRungs, with validation scores:")
    for line in advice.rung_lines(found.made.rungs, found.seconds):
        print(f"  {line}")
    print("\n" + "\n\n".join(advice.sentences(found.made, found.costs, found.setting)))
    if args.json:
        write_json(args.json, advice.as_json(found.made, found.costs, found.setting))
        print(f"\nWritten to {args.json}")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(guarded(main))
