"""Register the best finished run as a version of the model bert-squad-qa, ready to be served.

The best is the one with the highest validation F1 on one data set; test figures are carried along, never chosen by.
Before it is registered, the model is loaded back and must answer a sample of the test questions as it did in training.
The version becomes champion; where the champion on the same data is as good, it stays and the new one becomes
challenger. Running this twice changes nothing.
"""

import argparse
import sys
from pathlib import Path

import _path  # noqa: F401

from common.cli import guarded


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--experiment_name",
        default="squad-qa",
        help="MLflow experiment to choose from (default: %(default)s)",
    )
    parser.add_argument(
        "--data_fingerprint",
        metavar="SHA256",
        help="choose among the runs on this data; its first characters suffice (default: the newest run's data)",
    )
    parser.add_argument(
        "--data_dir",
        type=Path,
        metavar="DIR",
        help="the prepared data, whose test questions are asked again (default: the folder the run was trained from)",
    )
    args = parser.parse_args()

    from common import registry

    done = registry.register_best(args.experiment_name, args.data_fingerprint, args.data_dir)
    for note in done.notes:
        print(note)
    role = f", {done.alias}" if done.alias else ""
    print(
        f"{done.name} version {done.version}{role}: run {done.run_id}{'' if done.is_new else ' (nothing to do)'}\n"
    )
    uri = f"models:/{done.name}@{done.alias}" if done.alias else f"models:/{done.name}/{done.version}"
    print("Serve it, from the project's folder:")
    print(f"  OMP_NUM_THREADS=1 mlflow models serve -m {uri} --env-manager local -p 5001")


if __name__ == "__main__":
    sys.exit(guarded(main))
