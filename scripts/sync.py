"""Send to the MLflow store what it lacks: the records that trainings kept on disk while the store was not reachable.

  python scripts/sync.py                 # all folders below mlruns/checkpoints
  python scripts/sync.py FOLDER ...      # these output folders (--output_dir of the trainings)
  python scripts/sync.py --new_run       # log a run that was deleted from the store into a new one

Every entry is sent once and in order, however often this script runs. A finished run's folder is removed when the store
has all of it; an unfinished one stays, so that --resume can continue the training.
"""

import sys
from pathlib import Path

import _path  # noqa: F401

from common.cli import Parser, guarded
from common.errors import UserError
from common.paths import ROOT


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="output folders of trainings")
    parser.add_argument(
        "--new_run",
        action="store_true",
        help="log everything into a new run if the run was deleted from the store",
    )
    args = parser.parse_args()
    from common.tracking import store
    from common.training import recording
    from common.training.run_folder import STATE, own, read_state

    found = sorted(file.parent for file in (ROOT / "mlruns" / "checkpoints").glob(f"*/{STATE}"))
    for folder in args.folders:
        if "run_id" not in read_state(folder):
            raise UserError(f"{folder} holds no run; name the --output_dir of a training.")
    store.configure()
    failed = []
    for folder in args.folders or found:
        try:
            with own(folder, read_state(folder).get("run_fingerprint", ""), resume=True) as state:
                if "run_id" not in state or state.get("removing"):
                    continue
                run_id, sent, ended = recording.send(folder, new_run=args.new_run)
            print(
                f"{folder}: run {run_id}, {sent} entries sent; {ended or 'not finished: continue with --resume'}"
            )
        except UserError as error:
            print(error, file=sys.stderr)
            failed.append(folder)
    if failed:
        raise UserError(f"{len(failed)} of {len(args.folders or found)} folders could not be sent.")
    if not (args.folders or found):
        print("There is nothing to send.")


if __name__ == "__main__":
    sys.exit(guarded(main))
