"""Runs rows as the studies of a checkout do, one after another: `_rows_of_checkout.py CHECKOUT DATA FOLDER COUNT`.

FOLDER gets report.json: `beside` (seconds of each row without its training), `training` seconds, and `cpu` seconds, user and
system, with the training. The first row, one more than COUNT, is left out. Modules of this checkout are not imported. A row's
process runs this file too: `_rows_of_checkout.py --row CHECKOUT REPORT FLAGS`.
"""

import json
import os
import runpy
import sys
import time
from pathlib import Path

FLAGS = (
    "--model_checkpoint embedded --max_length 192 --doc_stride 32 --num_train_epochs 1 --logging_steps 1 "
    "--batch_size 8 --max_train_samples 48 --max_validation_samples 16 --max_test_samples 24"
).split()


def main(checkout: str, data: str, own: str, count: str) -> None:
    sys.path[0] = checkout
    from common.studies.folder import Folder
    from common.studies.row_starter import Starter
    from common.tracking import runs, store

    store.configure()
    folder, found, spent = Folder(Path(own, "rows")), [], []
    with folder.held(), Starter() as starter:
        for seed in range(int(count) + 1):
            name, used = f"row-{seed}", Path(own, f"{seed}.json")
            command = [str(Path(__file__).resolve()), "--row", checkout, str(used), *FLAGS]
            command += ["--seed", str(seed), "--data_dir", data, "--run_name", name]
            command += ["--output_dir", f"{own}/checkpoints/{name}"]
            starter.ready()
            began = time.perf_counter()
            code, why = folder.run(command, name, starter.start)
            seconds = time.perf_counter() - began
            if code:
                sys.exit(f"{name}: {why}")
            training = float(
                runs.finished_runs("squad-qa").set_index("run_name").loc[name, "training_seconds"]
            )
            spent.append(children(used.read_text()))
            if seed:
                cpu = spent[-1] - spent[-2]
                found.append({"beside": seconds - training, "training": training, "cpu": cpu})
    Path(own, "report.json").write_text(json.dumps(found))


def children(process: str) -> float:
    """CPU seconds of the processes that a process started, has waited for and that have ended."""
    fields = Path("/proc", process, "stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def row(checkout: str, report: str, flags: list) -> None:
    # Of the process that forks the rows, which stays.
    Path(report).write_text(str(os.getppid()))
    scripts = Path(checkout, "scripts")
    sys.argv[:] = [str(scripts / "bert_fine_tuning_LoRA.py"), *flags]
    sys.path.insert(0, str(scripts))
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1] == "--row":
        row(sys.argv[2], sys.argv[3], sys.argv[4:])
    else:
        main(*sys.argv[1:])
