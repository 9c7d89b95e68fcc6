"""What a row of a study costs beside its training: forked with its imports done, against started by itself, alternating.

  python benchmarks/study_rows.py --rows 4

Each row is LoRA on 16 questions, as a smoke study has them, in a store of its own; its overhead is the row's wall time without
`training_seconds`. CPU seconds are the row's own, user and system.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import _path  # noqa: F401

from common.paths import ROOT
from common.studies import row_starter
from common.studies.folder import Folder
from common.tracking import runs, store

FLAGS = (
    "--model_checkpoint embedded --max_length 192 --doc_stride 32 --num_train_epochs 1 --logging_steps 1 "
    "--max_train_samples 16 --max_validation_samples 16 --max_test_samples 24"
).split()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=4, help="rows of each kind")
    parser.add_argument("--output", type=Path, help="where the figures go as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{scratch}/mlflow.db"
        store.configure()
        folder = Folder(Path(scratch) / "rows")
        found: dict[str, list[dict]] = {"started": [], "forked": []}
        with folder.held(), row_starter.Starter() as starter:
            # The first row makes the data and fills the disk's cache; it counts for nothing.
            timed(folder, scratch, 0, starter)
            for seed in range(1, 2 * args.rows, 2):
                found["started"].append(timed(folder, scratch, seed, None))
                found["forked"].append(timed(folder, scratch, seed + 1, starter))
    medians = {
        kind: {name: statistics.median(row[name] for row in rows) for name in rows[0]}
        for kind, rows in found.items()
    }
    overheads = zip(found["started"], found["forked"], strict=True)
    ratio = statistics.median(a["overhead"] / b["overhead"] for a, b in overheads)
    for kind, median in medians.items():
        print(f"{kind}: " + ", ".join(f"{name} {value:.1f} s" for name, value in median.items()))
    print(f"overhead, started / forked, median of pairs: {ratio:.2f}")
    if args.output:
        args.output.write_text(json.dumps({"rows": found, "ratio": ratio}, indent=1) + "\n")


def timed(folder: Folder, scratch: str, seed: int, starter: row_starter.Starter | None) -> dict[str, float]:
    """`whole`, `training`, `overhead` and `cpu` of one row, in seconds."""
    name, result = f"row-{seed}", Path(scratch) / f"{seed}.json"
    command = [str(Path(__file__).resolve()), str(result), *FLAGS]
    command += ["--seed", str(seed), "--data_dir", f"{scratch}/data", "--run_name", name]
    command += ["--output_dir", f"{scratch}/checkpoints/{name}"]
    if starter:
        starter.ready()
    begun = time.perf_counter()
    code, why = folder.run(command, name, starter.start if starter else row_starter.started)
    whole = time.perf_counter() - begun
    if code != 0:
        sys.exit(f"{name}: {why}")
    run = runs.finished_runs("squad-qa").set_index("run_name").loc[name]
    training = float(run["training_seconds"])
    cpu = json.loads(result.read_text())
    return {"whole": whole, "training": training, "overhead": whole - training, "cpu": cpu}


def row() -> None:
    """In a row's process: the technique's script, and the CPU time that it took."""
    import runpy

    result = Path(sys.argv.pop(1))
    script = str(ROOT / "scripts" / "bert_fine_tuning_LoRA.py")
    sys.argv[0] = script
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        used = resource.getrusage(resource.RUSAGE_SELF)
        result.write_text(json.dumps(used.ru_utime + used.ru_stime))


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].endswith(".json"):
        row()
    else:
        main()
