"""Seconds from the start of a technique's script to the end of its first optimizer step, with a warm file cache. Linux only.

  python benchmarks/first_step.py --techniques lora standard ia3 loha prefix-tuning prompt-encoder
  python benchmarks/first_step.py --against ../the-suite-before

Each start is a process of its own on the packaged model and sample, once with a store that exists and once with a new one.
With --against, the same starts of another checkout of the suite take turns with these, and ratios are medians of pairs.
Parts: the imports of the suite and its libraries, and opening the store and making the run. CPU seconds (user and system) are
those of the process, which other work on the machine changes less. The first start of a checkout counts for nothing: it
compiles modules and fills the cache. Prints JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import _path  # noqa: F401
from table_rows import between, checkout_flags, checkouts, write_report
from training import spread

from common.api.technique_scripts import technique_scripts
from common.paths import ROOT

CHILD = Path(__file__).resolve().with_name("_until_first_step.py")
FLAGS = (
    "--model_checkpoint embedded --max_length 192 --doc_stride 32 --num_train_epochs 1 "
    "--max_train_samples 16 --max_validation_samples 16 --max_test_samples 24"
).split()
STORES = ("existing", "new")
FIGURES = ("seconds", "cpu", "imports", "opening")


def python(checkout: Path) -> str:
    """The interpreter of a checkout's environment; without one, this interpreter."""
    own = checkout / ".venv" / "bin" / "python"
    return str(own) if own.is_file() else sys.executable


def started(script: Path, data: Path, database: Path) -> dict[str, float]:
    """FIGURES of one start, without the parts that the script's checkout does not have."""
    with tempfile.TemporaryDirectory() as own:
        report = Path(own) / "report.json"
        flags = [*FLAGS, "--data_dir", str(data), "--output_dir", f"{own}/checkpoints"]
        environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{database}", "HF_HUB_OFFLINE": "1"}
        # The modules of a checkout are compiled once, as they are for its users.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        done = subprocess.run(
            [python(script.parents[1]), str(CHILD), str(report), str(script), *flags],
            env=environment,
            cwd=own,
            capture_output=True,
            text=True,
        )
        if not report.is_file():
            raise SystemExit(f"{script} failed (exit code {done.returncode}):\n{done.stderr[-3000:]}")
        found: dict[str, float] = json.loads(report.read_text())
        return found


def measure(checkouts: dict[str, Path], scripts: dict[str, str], starts: int, scratch: Path) -> list[dict]:
    """Every start that counts. checkouts: name → folder; scripts: technique → file name."""
    data = scratch / "data"
    prepare = [str(ROOT / "scripts" / "prepare_data.py"), "--source", "sample", "--output_dir", str(data)]
    subprocess.run([sys.executable, *prepare], check=True, capture_output=True)
    for name, folder in checkouts.items():
        # Each checkout's store is as it makes it.
        (scratch / name).mkdir()
        started(folder / "scripts" / next(iter(scripts.values())), data, scratch / name / "mlflow.db")
    found = []
    for round_ in range(starts):
        for technique, script in scripts.items():
            for store in STORES:
                # In turns, so that neither is always the first.
                for name in sorted(checkouts, reverse=bool(round_ % 2)):
                    with tempfile.TemporaryDirectory() as empty:
                        place = scratch / name if store == "existing" else Path(empty)
                        row = started(checkouts[name] / "scripts" / script, data, place / "mlflow.db")
                    about = {"technique": technique, "store": store, "checkout": name, "round": round_}
                    found.append(about | row)
                    print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    return found


def summary(found: list[dict]) -> list[dict]:
    """A row for each technique and kind of store: medians of this checkout and of the other; the other's times this one's."""
    rows = []
    for technique, store in dict.fromkeys((each["technique"], each["store"]) for each in found):
        row: dict = {"technique": technique, "store": store}
        of: dict[str, dict[int, dict]] = {"this": {}, "other": {}}
        for each in found:
            if (each["technique"], each["store"]) == (technique, store):
                of[each["checkout"]][each["round"]] = each
        for name in FIGURES:
            for checkout, prefix in (("this", ""), ("other", "other_")):
                values = [each[name] for each in of[checkout].values() if name in each]
                if values:
                    row[prefix + name] = statistics.median(values)
        for name in FIGURES[:2] if of["other"] else ():
            pairs = [of["other"][i][name] / each[name] for i, each in of["this"].items()]
            row |= between(f"{name}_ratio", spread(pairs))
        rows.append(row)
    return rows


def main() -> None:
    known = {key: file.name for key, (_, file) in technique_scripts().items()}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--techniques",
        nargs="+",
        default=["lora"],
        choices=sorted(known),
        metavar="KEY",
        help="default: lora",
    )
    parser.add_argument("--starts", type=int, default=5, help="of each kind (default: %(default)s)")
    checkout_flags(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        techniques = {key: known[key] for key in args.techniques}
        found = measure(checkouts(args.against), techniques, args.starts, Path(scratch))
    write_report(args, summary(found), found, "the packaged sample and model, 16 questions; medians")


if __name__ == "__main__":
    main()
