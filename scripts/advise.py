"""Find out which technique to take for your own data: a small sweep, by successive halving.

First every technique is trained at three learning rates on a ninth of the training questions (or texts), then the best
third of them on a third of the data, then the best two on all of it. All decisions are made on the validation set. The
advice says which technique to take with which command line, how sure that is (paired tests on the same validation
questions, with Holm's correction), what was excluded and why, and what more data would bring. With fewer than 540
training questions there are fewer rungs.

Each rung is a study (docs/STUDIES.md): no finished run is trained again, and the same line goes on after an
interruption. results/advice-.../ holds the rungs and advice.json, their notes.
"""

import _path  # noqa: F401  # isort: skip
import os
import shlex
import sys
from pathlib import Path

from common.api import advising
from common.bounds import SEEDS, number
from common.cli import Parser, guarded
from common.errors import UserError
from common.files import write_json
from common.paths import ROOT, interpreter
from common.studies import backends
from common.tasks.table import DEFAULT_TASK, TASKS

EXAMPLES = f"""techniques:
  {", ".join(advising.choices())}

examples:
  python scripts/advise.py --data_dir my_data
  python scripts/advise.py --data_dir my_data --techniques lora bitfit ia3 --budget_minutes 60
  python scripts/advise.py --data_dir my_data --max_latency_ms 30 --max_size_mb 5 --json advice.json
  python scripts/advise.py --data_dir reviews --task classification --model_checkpoint embedded-distilbert
  python scripts/advise.py --data_dir my_data --backend ray --address HEAD:6379
"""


def parser() -> Parser:
    made = Parser(description=__doc__, epilog=EXAMPLES)
    default = "(default: %(default)s)"
    add = made.add_argument
    add("--data_dir", metavar="DIR", required=True, help="prepared data (see scripts/prepare_data.py)")
    add("--task", choices=tuple(TASKS), default=DEFAULT_TASK, help=f"what the model is for {default}")
    add("--model_checkpoint", default="auto", metavar="NAME", help=f"as in the technique scripts {default}")
    which = "which ones to try, of those below (default: all that work with the model)"
    add("--techniques", nargs="+", metavar="KEY", default=[], help=which)
    further = (
        "settings of every run, as in the technique scripts (max_length, batch_size, num_train_epochs, ...)"
    )
    add("--config", type=Path, metavar="FILE.yaml", help=further)
    seed = f"seed of every run {default}"
    add("--seed", type=number(minimum=0, maximum=SEEDS), default=42, metavar="N", help=seed)
    positive = number(float, above=0)
    add = made.add_argument_group("what you can afford").add_argument
    latency = "longest median time that one request may take; the stored model is measured on this machine"
    add("--max_latency_ms", type=positive, metavar="MS", help=latency)
    stored = "largest size of what a technique trains and stores (an adapter, or a whole model), in MiB"
    add("--max_size_mb", type=positive, metavar="MIB", help=stored)
    time = (
        "time for all runs together; to keep to it, fewer learning rates, fewer techniques (the likeliest of "
        "docs/CHOOSING.md) or less data are tried"
    )
    add("--budget_minutes", type=positive, metavar="MINUTES", help=time)
    counts = (
        f"a smaller difference in the score does not count: the technique that stores less is taken {default}"
    )
    add("--smallest_difference", type=number(float, minimum=0), metavar="POINTS", default=1.0, help=counts)
    add = made.add_argument_group("where it is trained and written").add_argument
    add("--backend", choices=backends.BACKENDS, default=backends.LOCAL, help=f"as in study.py {default}")
    add("--address", metavar="HOST:PORT", help="the Ray cluster; default: Ray starts here")
    place = "where the folder of the rungs is created (default: results/ in the project)"
    add("--output_dir", type=Path, metavar="DIR", default=ROOT / "results", help=place)
    add("--retry_failed", action="store_true", help="train failed runs again; who goes on is decided again")
    add("--json", type=Path, metavar="FILE", help="also write the advice as JSON")
    return made


def main() -> None:
    args = parser().parse_args()
    if args.backend != backends.RAY and args.address:
        raise UserError("--address is for --backend ray.")
    if args.json and not args.json.absolute().parent.is_dir():
        raise UserError(f"--json {args.json}: there is no folder {args.json.absolute().parent}.")
    if args.json and args.json.is_dir():
        raise UserError(f"--json {args.json} is a folder: name a file in it.")
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
        found = advising.advise(asked, args.output_dir, args.backend, args.address, args.retry_failed)
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
