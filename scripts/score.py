"""Score a predictions file against a file of questions, as the official evaluation scripts do; prints JSON.

The file is read by the rules of prepare_data.py, in any of its formats. The rules of v2.0 apply if the file's version says so, or if any
question is marked is_impossible, else those of v1.1.
"""

import argparse
import json
import sys
from pathlib import Path

import _path  # noqa: F401

from common.bounds import number
from common.cli import Parser
from common.data.question_files import read_questions
from common.errors import UserError
from common.scoring.prediction_files import differences, read_no_answer_probabilities, read_predictions
from common.scoring.squad import squad_scores

EXAMPLES = """examples:
  python scripts/score.py dev-v1.1.json predictions.json
  python scripts/score.py dev-v2.0.json predictions.json --na-prob-file na_prob.json --na-prob-thresh 0.5
"""


def parser() -> Parser:
    made = Parser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "data",
        metavar="DATA",
        type=Path,
        help="SQuAD file, or another file of questions that prepare_data.py reads",
    )
    made.add_argument(
        "predictions", metavar="PREDICTIONS.json", type=Path, help='{"question id": "answer", ...}'
    )
    made.add_argument(
        "--na-prob-file",
        metavar="FILE",
        type=Path,
        help='v2.0: {"question id": probability of no answer, ...}; adds the best thresholds to the scores',
    )
    made.add_argument(
        "--na-prob-thresh",
        metavar="PROBABILITY",
        type=number(float),
        default=1.0,
        help='v2.0: a higher probability counts as the prediction "no answer" (default: %(default)s)',
    )
    return made


def main(arguments: list[str] | None = None) -> int:
    try:
        args = parser().parse_args(arguments)
        squad = read_questions(args.data)
        predictions = read_predictions(args.predictions)
        probabilities = read_no_answer_probabilities(args.na_prob_file) if args.na_prob_file else None
        for note in differences([example["id"] for example in squad.examples], predictions, squad.version):
            print(note, file=sys.stderr)
        try:
            scores = squad_scores(
                predictions, squad.examples, squad.version, probabilities, args.na_prob_thresh
            )
        except ValueError as error:
            raise UserError(f"{args.data} with {args.predictions}: {error}") from error
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(scores, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
