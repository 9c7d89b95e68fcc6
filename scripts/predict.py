"""Ask a model every question of a file, or have it classify every text: predictions as score.py reads them.

The model may be of the store (models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID/model, ONNX versions too), a folder, or
anybody's question-answering or classification model of the Hugging Face hub. An interrupted run goes on with --resume.
"""

import shlex
import sys
from pathlib import Path

import _path  # noqa: F401

from common.bounds import number
from common.cli import Parser, guarded, importing
from common.counts import count_of
from common.data.columns import parse
from common.errors import UserError
from common.paths import command, interpreter

EXAMPLES = """examples:
  python scripts/predict.py --model models:/bert-squad-qa@champion --file dev-v2.0.json --output predictions.json
  python scripts/score.py dev-v2.0.json predictions.json
  python scripts/predict.py --model bert-base-uncased --adapter my-lora --file dev-v1.1.json --output predictions.json
  cat questions.jsonl | python scripts/predict.py --model deepset/roberta-base-squad2 --file - --output answers.json
"""


def parser() -> Parser:
    made = Parser(description=__doc__, epilog=EXAMPLES)
    made.add_argument("--model", metavar="URI", help="models:/..., runs:/..., a folder, or a hub id")
    made.add_argument(
        "--adapter",
        metavar="DIR",
        help="a folder that PEFT's save_pretrained wrote: --model is its base (default: the one that it names)",
    )
    made.add_argument(
        "--file",
        required=True,
        nargs="+",
        metavar="DATA",
        help="files with questions or texts; -: JSON lines on stdin",
    )
    made.add_argument(
        "--columns", metavar="FIELD=COLUMN,...", help="columns of tables, as in prepare_data.py"
    )
    made.add_argument(
        "--format", default="auto", help="format of the files (default: found by their content)"
    )
    files = made.add_argument_group("what is written")
    files.add_argument(
        "--output", required=True, type=Path, metavar="FILE.json", help='{"id": "answer", ...}, or labels'
    )
    files.add_argument("--n_best", type=Path, metavar="FILE.json", help="the 20 best candidates of each")
    files.add_argument(
        "--null_odds",
        type=Path,
        metavar="FILE.json",
        help='probability of "no answer" against the best answer, for score.py --na-prob-file',
    )
    files.add_argument("--csv", type=Path, metavar="FILE.csv", help="a row for each example")
    asked = made.add_argument_group("how the model is asked")
    asked.add_argument(
        "--null_threshold",
        type=number(float),
        metavar="X",
        help='give "no answer" where it is better by more than X (default: the model\'s own; a hub model always answers)',
    )
    asked.add_argument("--max_answer_length", type=number(minimum=1), metavar="N", help="tokens of an answer")
    asked.add_argument(
        "--pairs", action="store_true", help="a classifier that was not trained here takes pairs of texts"
    )
    made.add_argument("--resume", action="store_true", help="go on with a run that was interrupted")
    cluster = made.add_argument_group("many machines (requirements-ray.txt)")
    cluster.add_argument(
        "--backend",
        choices=("local", "ray"),
        default="local",
        help="ray: one model on each worker of a Ray cluster",
    )
    cluster.add_argument("--address", help="of the cluster (default: Ray on this machine)")
    cluster.add_argument(
        "--workers",
        type=number(minimum=1),
        metavar="N",
        help="default: as many as there are GPUs, or else CPUs",
    )
    return made


def main() -> None:
    args = parser().parse_args()
    with importing():
        from common.inference import models, predicting
        from common.inference.backends import backends_of
        from common.inference.outputs import Outputs
        from common.inference.source import source_of

    if args.adapter and args.backend != "local":
        raise UserError(
            f"--adapter is for --backend local: {command('import_model.py')} makes a run of it first."
        )
    outputs = Outputs(args.output, args.n_best, args.null_odds, args.csv)
    backends = backends_of(args.backend, address=args.address, workers=args.workers)
    model = models.load(args.model, pairs=args.pairs, adapter=args.adapter)
    source = source_of(
        args.file,
        model.asked,
        columns=parse(args.columns),
        format=args.format,
        multi_label=model.task.multi_label,
    )
    wanted = {"null_threshold": args.null_threshold, "max_answer_length": args.max_answer_length}
    try:
        done = predicting.predict(
            model, source, outputs, parameters=wanted, resume=args.resume, backends=backends
        )
    except (KeyboardInterrupt, SystemExit):
        words = [word for word in sys.argv if word != "--resume"]
        print(f"\nStopped. To go on: {shlex.join([interpreter(), *words, '--resume'])}", file=sys.stderr)
        raise
    print(f"{count_of(done.examples, model.task.unit)}: {', '.join(done.files)}")


if __name__ == "__main__":
    sys.exit(guarded(main))
