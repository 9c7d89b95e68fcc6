"""Seconds of a study's row beside its training, and of a whole `study.py --smoke`, now and in another checkout. Linux only.

  python benchmarks/row_overhead.py --rows 5
  python benchmarks/row_overhead.py --rows 5 --studies 3 --against ../the-suite-before

Rows: LoRA on 48 questions with the packaged model, as a smoke study has them, forked by each checkout's own code, in a store
that exists. The time beside training is the row's wall time without `training_seconds`; the CPU seconds (user and system) are
those of the process with its training. Studies: the whole command with a new store and folder, on prepared data. With
--against, the checkouts take turns with their studies; their rows follow one another. Ratios are medians of pairs. The first
row of a checkout counts for nothing: it compiles modules and fills the cache. Prints JSON.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _path  # noqa: F401
from first_step import python
from table_rows import between, checkout_flags, checkouts, write_report
from training import spread

from common.paths import ROOT

CHILD = Path(__file__).resolve().with_name("_rows_of_checkout.py")
STUDY = "studies/bert_six_techniques.yaml"
FIGURES = {"row": ("beside", "training", "cpu"), "study": ("seconds", "cpu")}


def environment(database: Path) -> dict[str, str]:
    found = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{database}", "HF_HUB_OFFLINE": "1"}
    # The modules of a checkout are compiled once, as they are for its users.
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    return found


def rows(checkout: Path, data: Path, count: int) -> list[dict[str, float]]:
    """The rows that count of one process of a checkout, one after another."""
    with tempfile.TemporaryDirectory() as own:
        command = [python(checkout), str(CHILD), str(checkout), str(data), own, str(count)]
        done = subprocess.run(
            command, env=environment(Path(own, "mlflow.db")), cwd=own, capture_output=True, text=True
        )
        report = Path(own, "report.json")
        if not report.is_file():
            raise SystemExit(f"{checkout}: no rows (exit code {done.returncode}):\n{done.stderr[-3000:]}")
        found: list[dict[str, float]] = json.loads(report.read_text())
        return found


def study(checkout: Path, text: str, own: str, *flags: str) -> dict[str, float]:
    """`seconds` and `cpu` seconds of a study from nothing to its report, with the processes that it starts.

    text: of the study's file. own: an empty folder for it, its store and its results.
    """
    file = Path(own, "study.yaml")
    file.write_text(text, encoding="utf-8")
    command = [
        python(checkout),
        str(checkout / "scripts" / "study.py"),
        str(file),
        *flags,
        "--output_dir",
        own,
    ]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command, env=environment(Path(own, "mlflow.db")), cwd=own, capture_output=True, text=True
    )
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{checkout}: the study failed:\n{done.stderr[-3000:]}")
    # A process that is killed by its parent, and waited for, counts with its children.
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"seconds": seconds, "cpu": cpu}


def whole(checkout: Path, data: Path) -> dict[str, float]:
    """What `study` gives for a smoke study."""
    text = (ROOT / STUDY).read_text(encoding="utf-8")
    text = text.replace("\nbase:\n", f"\nbase:\n  data_dir: {json.dumps(str(data))}\n", 1)
    with tempfile.TemporaryDirectory() as own:
        return study(checkout, text, own, "--smoke")


def summary(found: list[dict]) -> list[dict]:
    """A line for a row and one for a study: medians of this checkout and of the other; the other's times this one's."""
    lines = []
    for what in dict.fromkeys(each["what"] for each in found):
        line: dict = {"what": what}
        of = {
            name: [e for e in found if (e["what"], e["checkout"]) == (what, name)]
            for name in ("this", "other")
        }
        for figure in FIGURES[what]:
            for name, prefix in (("this", ""), ("other", "other_")):
                if of[name]:
                    line[prefix + figure] = statistics.median(each[figure] for each in of[name])
            if of["other"]:
                pairs = [b[figure] / a[figure] for a, b in zip(of["this"], of["other"], strict=True)]
                line |= between(f"{figure}_ratio", spread(pairs))
        lines.append(line)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=4, help="that count, of each checkout (default: 4)")
    parser.add_argument("--studies", type=int, default=1, help="of each checkout (default: 1)")
    checkout_flags(parser)
    args = parser.parse_args()
    compared = checkouts(args.against)
    found: list[dict] = []
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch, "data")
        prepare = [str(ROOT / "scripts" / "prepare_data.py"), "--source", "sample", "--output_dir", str(data)]
        subprocess.run([sys.executable, *prepare], check=True, capture_output=True)
        for i in range(args.studies):
            # In turns, so that neither is always the first.
            for name in sorted(compared, reverse=bool(i % 2)):
                found.append({"what": "study", "checkout": name, **whole(compared[name], data)})
                print(json.dumps(found[-1]), file=sys.stderr, flush=True)
        for name, folder in compared.items() if args.rows else ():
            for each in rows(folder, data, args.rows):
                found.append({"what": "row", "checkout": name, **each})
                print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    write_report(args, summary(found), found, "the packaged sample and model, 48 questions; medians")


if __name__ == "__main__":
    main()
