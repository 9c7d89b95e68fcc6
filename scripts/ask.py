"""Ask a registered model a question about a text."""

import sys

import _path  # noqa: F401

from common.bounds import number
from common.cli import Parser, guarded, importing
from common.errors import UserError
from common.files import text_or_file

HEART = (
    "The human heart beats about 100,000 times a day. Its right side sends blood to the lungs, where it takes up "
    "oxygen; its left side, whose wall is three times as thick, drives the blood through the rest of the body."
)


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("question", nargs="?", default="Where does blood take up oxygen?")
    parser.add_argument(
        "--context",
        metavar="TEXT|FILE",
        default=HEART,
        help="the text, or a file that holds it (-: standard input)",
    )
    parser.add_argument(
        "--model",
        default="models:/bert-squad-qa@champion",
        help="models:/..., runs:/..., a folder, or a hub id (default: %(default)s)",
    )
    parser.add_argument(
        "--top_k", type=number(minimum=1), default=3, help="answers to show (default: %(default)s)"
    )
    parser.add_argument(
        "--max_error",
        type=number(float, above=0, below=1),
        metavar="SHARE",
        help="share of wrong answers that is allowed, such as 0.1: a model that is less sure abstains (default: any)",
    )
    args = parser.parse_args()
    context = text_or_file(args.context, "--context")
    if not context.strip():
        raise UserError("--context is empty: give a text, or a file that holds one.")

    with importing():
        from common.inference import models

    model = models.load(args.model)
    # Models that generate text give one answer.
    params = {"top_k": args.top_k} if "top_k" in model.parameters else {}
    if args.max_error is not None:
        if "max_error" not in model.parameters:
            raise UserError(
                f"{args.model} was stored by an earlier version, which promises no error: train again."
            )
        params["max_error"] = args.max_error
    answer = model.answer(args.question, context, **params)
    print(f"{args.model}\n\n{context}\n\n{args.question}")
    nothing = "(not sure enough: it abstains)" if answer.get("abstained") else "(no answer)"
    for row in [answer, *(answer.get("alternatives") or [])]:
        print(f"  {row['score']:6.1%}  {row['answer'] or nothing}")


if __name__ == "__main__":
    sys.exit(guarded(main))
