"""Score a predictions file against a file of questions, as the official evaluation scripts do; prints JSON.

The file is read as prepare_data.py reads it, in any of its formats. The rules of v2.0 apply if the file states that version
or marks a question as is_impossible, else those of v1.1. Questions with a language, in the file or by --language, are
compared by the rules published for it.
"""

import json
import sys
from pathlib import Path

import _path  # noqa: F401

from common.bounds import number
from common.cli import Parser
from common.data.language import checked
from common.data.question_files import read_questions
from common.errors import UserError
from common.scoring.prediction_files import differences, read_no_answer_probabilities, read_predictions
from common.scoring.squad import Version, squad_scores

EXAMPLES = """examples:
  python scripts/score.py dev-v1.1.json predictions.json
  python scripts/score.py dev-v2.0.json predictions.json --na-prob-file na_prob.json --na-prob-thresh 0.5
"""


def parser() -> Parser:
    made = Parser(description=__doc__, epilog=EXAMPLES)
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
    made.add_argument(
        "--language",
        metavar="CODE",
        help="of the answers: en, es, hi, vi, de, ar, zh (MLQA's rules), ja, ko, or the conventions korquad, cmrc (default: what the "
        "file says of its questions, else SQuAD's rules)",
    )
    return made


def main(arguments: list[str] | None = None) -> int:
    try:
        args = parser().parse_args(arguments)
        language = checked(args.language) if args.language else None
        squad = read_questions(args.data, language=language)
        predictions = read_predictions(args.predictions)
        probabilities = read_no_answer_probabilities(args.na_prob_file) if args.na_prob_file else None
        for note in differences([example["id"] for example in squad.examples], predictions, squad.version):
            print(note, file=sys.stderr)
        try:
            rules: Version = "v2.0" if squad.version == "v2.0" else "v1.1"
            scores = squad_scores(predictions, squad.examples, rules, probabilities, args.na_prob_thresh)
        except ValueError as error:
            raise UserError(f"{args.data} with {args.predictions}: {error}") from error
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(scores, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
