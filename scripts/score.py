"""Score a predictions file against a SQuAD file, as the official evaluation scripts do; prints JSON.

The file is read by the rules of prepare_data.py. Those of v2.0 apply if its version says so, or if any question is marked
is_impossible, else those of v1.1.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import _path  # noqa: F401

from common.bounds import number
from common.cli import Parser
from common.data.squad_json import read_squad_json
from common.errors import UserError
from common.files import read_text
from common.scoring.squad import squad_scores


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DATA.json", type=Path, help="SQuAD file, v1.1 or v2.0")
    parser.add_argument(
        "predictions", metavar="PREDICTIONS.json", type=Path, help='{"question id": "answer", ...}'
    )
    parser.add_argument(
        "--na-prob-file",
        metavar="FILE",
        type=Path,
        help='v2.0: {"question id": probability of no answer, ...}; adds the best thresholds to the scores',
    )
    parser.add_argument(
        "--na-prob-thresh",
        type=number(float),
        default=1.0,
        help='v2.0: a probability above it counts as the prediction "no answer" (default: %(default)s)',
    )
    try:
        args = parser.parse_args(arguments)
        references, version = read_references(args.data)
        predictions = read_predictions(args.predictions)
        odds = read_odds(args.na_prob_file) if args.na_prob_file else None
        report_differences(references, predictions, version)
        try:
            scores = squad_scores(predictions, references, version, odds, args.na_prob_thresh)
        except ValueError as error:
            raise UserError(f"{args.data} with {args.predictions}: {error}") from error
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(scores, indent=2))
    return 0


def read_references(path: Path) -> tuple[list[dict], str]:
    """Ids with answers, and "v1.1" or "v2.0": the file is read as prepare_data.py reads it."""
    found = read_squad_json(path)
    return found.examples, found.version


def read_predictions(path: Path) -> dict[str, str]:
    """Question id → answer."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f'{path} must hold one JSON object, {{"question id": "answer", ...}}.')
    for id_, text in content.items():
        if not isinstance(text, str):
            raise UserError(f'{path}: the prediction for {id_!r} is no string ("" means no answer).')
    return content


def read_odds(path: Path) -> dict[str, float]:
    """Question id → probability of no answer."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f'{path} must hold one JSON object, {{"question id": number, ...}}.')
    for id_, value in content.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            raise UserError(f"{path}: the value for {id_!r} is no number.")
    return content


def read_json(path: Path):
    """The file's content; UserError where it cannot be read."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}.") from error


def report_differences(references: list[dict], predictions: dict[str, str], version: str) -> None:
    """Tell on stderr what is missing from the predictions and what does not belong there."""
    known = {reference["id"] for reference in references}
    missing = [reference["id"] for reference in references if reference["id"] not in predictions]
    unknown = [id_ for id_ in predictions if id_ not in known]
    effect = "score 0" if version == "v1.1" else "are left out"
    if missing:
        print(
            f"{len(missing)} of {len(known)} questions have no prediction and {effect}: {some(missing)}",
            file=sys.stderr,
        )
    if unknown:
        print(
            f"{len(unknown)} predictions are for other questions and are ignored: {some(unknown)}",
            file=sys.stderr,
        )


def some(ids: list[str]) -> str:
    return ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")


if __name__ == "__main__":
    sys.exit(main())
