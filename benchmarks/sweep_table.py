"""The table of docs/CHOOSING.md, from the folder of a study that swept learning rates and then trained at the best ones.

  python scripts/study.py studies/peft_on_encoders.yaml
  python benchmarks/sweep_table.py results/peft_on_encoders --json docs/results/peft_sweep.json

For each technique: the rates of stage --sweep with their validation scores; the best one with its bootstrap interval over
validation examples, and its difference from --reference, paired by example, with Holm's correction; the test scores of the
other stages at that rate, by seed; what it trains and stores; and its speed and memory by docs/results/gpu_techniques.json.
Prints a Markdown table.
"""

import _path  # noqa: F401  # isort: skip
import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from early_stopping import validated
from table_rows import json_flag, save_rows

from common.cli import guarded
from common.errors import UserError
from common.reports.result_tables import RESULTS, markdown, read
from common.scoring.bootstrap import bootstrap_interval, paired_bootstrap
from common.scoring.uncertainty import holm
from common.training.rates import number

DRAWS = 20_000


def table(folder: Path, sweep: str, reference: str, metric: str) -> list[dict]:
    """A row for each technique, the best first. UserError if the folder is none of a finished study with such a stage."""
    file = folder / "study.csv"
    if not file.is_file():
        raise UserError(f"{file} does not exist: name the folder of a finished study.")
    frame = pd.read_csv(file).query("status == 'finished'")
    swept = frame[frame["stage"] == sweep]
    if reference not in set(swept["technique"]):
        raise UserError(
            f"{file} has no finished row of {reference} in a stage {sweep}: set --reference and --sweep."
        )
    score = f"best_validation_{metric}"
    best = swept.loc[swept.groupby("technique", sort=False)[score].idxmax()].sort_values(
        score, ascending=False
    )
    each = {row["technique"]: validated(folder, row["name"], metric) for _, row in best.iterrows()}
    # Of one study, so of the same examples.
    scores = {title: np.array([of[id_] for id_ in each[reference]]) for title, of in each.items()}
    others = [title for title in scores if title != reference]
    differences = {title: paired_bootstrap(scores[title], scores[reference], DRAWS) for title in others}
    corrected = dict(zip(others, holm([found["p"] for found in differences.values()]), strict=True))
    gpu = {row["technique"]: row for row in read(RESULTS / "gpu_techniques.json")["rows"]}
    rows = []
    for _, chosen in best.iterrows():
        title, rate = chosen["technique"], chosen["learning_rate"]
        tried = swept[swept["technique"] == title].sort_values("learning_rate")
        row = {
            "technique": title,
            "rates": listed(map(number, tried["learning_rate"]), tried["learning_rate"] == rate),
            "scores": listed((f"{value:.1f}" for value in tried[score]), tried["learning_rate"] == rate),
            "validation": rounded(scores[title].mean(), *bootstrap_interval(scores[title], DRAWS)),
            "trained": int(chosen["trainable_parameters"]),
            "adapter_mib": round(chosen["adapter_mib"], 2),
        }
        if title != reference:
            found = differences[title]
            row["difference"] = rounded(found["difference"], found["low"], found["high"])
            row["p"] = max(round(float(corrected[title]), 3), 0.001)
        tests = frame[
            (frame["stage"] != sweep) & (frame["technique"] == title) & (frame["learning_rate"] == rate)
        ]
        if len(tests):
            by_seed = tests.sort_values("seed")[["seed", f"test_{metric}"]].itertuples(index=False)
            row["tests"] = ", ".join(f"{seed}: {value:.1f}" for seed, value in by_seed)
            row["test_mean"] = round(tests[f"test_{metric}"].mean(), 1)
        if title in gpu:
            row["gpu_windows"], row["gpu_mib"] = gpu[title]["windows_per_second"], gpu[title]["peak_mib"]
        rows.append(row)
    return rows


def listed(texts, bold) -> str:
    """Texts with commas, the chosen one in bold."""
    return ", ".join(f"**{text}**" if chosen else text for text, chosen in zip(texts, bold, strict=True))


def rounded(*values: float) -> list[float]:
    return [round(float(value), 1) for value in values]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, metavar="results/STUDY")
    parser.add_argument(
        "--sweep", default="sweep", help="the stage that swept the rates (default: %(default)s)"
    )
    parser.add_argument(
        "--reference", default="LoRA", help="what the others are compared with (default: %(default)s)"
    )
    parser.add_argument("--metric", default="f1")
    json_flag(parser)
    args = parser.parse_args()
    rows = table(args.study, args.sweep, args.reference, args.metric)
    save_rows(args.json, rows)
    print(markdown({"rows": rows, "columns": read(RESULTS / "peft_sweep.json")["columns"]}))


if __name__ == "__main__":
    sys.exit(guarded(main))
