"""Copy a run, or a registered version with its run, from one MLflow store to another.

  python scripts/transfer.py runs:/RUN_ID --from sqlite:////home/ann/project/mlflow.db --to http://127.0.0.1:5000
  python scripts/transfer.py models:/bert-squad-qa@champion --from http://127.0.0.1:5000 --to sqlite:////tmp/mlflow.db

The run has its parameters, metrics, tags, artifacts, data sets and logged models there, with the bases that they need. Models
and bases are checked against their records before and after; of artifacts, which have none, the copy is compared with what was
read. An interrupted transfer is completed by the same command; a second call brings what came since, and else changes nothing.
Aliases are set only with --alias.
"""

import sys

import _path  # noqa: F401

from common.cli import Parser, guarded


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("uri", metavar="URI", help="runs:/RUN_ID, models:/NAME/VERSION or models:/NAME@ALIAS")
    parser.add_argument(
        "--from", dest="source", required=True, metavar="STORE", help="tracking URI of the store that has it"
    )
    parser.add_argument(
        "--to",
        dest="target",
        required=True,
        metavar="STORE",
        help="tracking URI of the store that gets a copy",
    )
    parser.add_argument(
        "--alias",
        help="give the version this alias in the second store; champion takes the place of the champion there, without the gate",
    )
    args = parser.parse_args()

    from common.registry.transfer import transfer

    moved = transfer(args.uri, args.source, args.target, args.alias)
    print(
        f"Run {moved.run_id} with {moved.models} logged models{' was there already' if moved.was_there else ''}."
    )
    if moved.version:
        print(f"{moved.version}{f', {args.alias}' if args.alias else ''}")


if __name__ == "__main__":
    sys.exit(guarded(main))
