"""Ask a registered model a question about a text."""

import sys

import _path  # noqa: F401

from common.bounds import number
from common.cli import Parser, guarded
from common.errors import UserError, first_line
from common.files import text_or_file
from common.paths import command

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
        "--model", default="models:/bert-squad-qa@champion", help="MLflow model URI (default: %(default)s)"
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

    from common.serving import stored_code
    from common.tracking import store

    store.configure()
    import mlflow
    import pandas as pd

    try:
        model = stored_code.load(args.model)
    except (mlflow.MlflowException, OSError, ValueError) as error:
        raise UserError(
            f"{args.model} cannot be loaded: {first_line(error)} Register a model with {command('register_best.py')}, or "
            "name another --model."
        ) from None
    asked = pd.DataFrame([{"question": args.question, "context": context}])
    try:
        # Models that generate text give one answer.
        known = [param.name for param in model.metadata.get_params_schema() or ()]
        params = {"top_k": args.top_k} if "top_k" in known else {}
        if args.max_error is not None:
            if "max_error" not in known:
                raise UserError(
                    f"{args.model} was stored by an earlier version, which promises no error: train again."
                )
            params["max_error"] = args.max_error
        answer = model.predict(asked, params=params).iloc[0]
    except mlflow.MlflowException as error:
        raise UserError(error.message) from None
    print(f"{args.model}\n\n{context}\n\n{args.question}")
    nothing = "(not sure enough: it abstains)" if answer.get("abstained") else "(no answer)"
    for row in [answer, *(answer.get("alternatives") or [])]:
        print(f"  {row['score']:6.1%}  {row['answer'] or nothing}")


if __name__ == "__main__":
    sys.exit(guarded(main))
