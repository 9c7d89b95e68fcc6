"""The table of docs/CHOOSING.md, from the folder of a study that swept learning rates and then trained at the best ones.

  python scripts/study.py studies/peft_on_encoders.yaml
  python benchmarks/sweep_table.py results/peft_on_encoders --json docs/results/peft_sweep.json
  python benchmarks/sweep_table.py results/peft_on_encoders --tests --json docs/results/peft_full.json

For each technique: the rates of stage --sweep with their validation scores; the best one with its bootstrap interval over
validation examples, and its difference from --reference, paired by example, with Holm's correction; the test scores of the
other stages at that rate, by seed; what it trains and stores; and its speed and memory by docs/results/gpu_techniques.json.
With --tests it is the table of the other stages: for each technique that was trained at its best rate, the mean test score over
its seeds with an interval over questions and seeds, and its difference from --reference, with Holm's correction. How much seeds
differ is pooled over the techniques that reach half of the reference's score, so that one seed has an interval too. Prints a
Markdown table.
"""

import _path  # noqa: F401  # isort: skip
import argparse
import json
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
from common.scoring.uncertainty import holm, interval, paired_difference, spread_of
from common.training.rates import number

DRAWS = 20_000


def of_study(
    folder: Path, sweep: str, reference: str, metric: str
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """A study's finished rows, those of its sweep, and of these each technique's best by validation, the best first."""
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
    best = swept.loc[swept.groupby("technique", sort=False)[score].idxmax()]
    return frame, swept, best.sort_values(score, ascending=False)


def table(folder: Path, sweep: str, reference: str, metric: str) -> list[dict]:
    """A row for each technique, the best first. UserError if the folder is none of a finished study with such a stage."""
    frame, swept, best = of_study(folder, sweep, reference, metric)
    each = {row["technique"]: validated(folder, row["name"], metric) for _, row in best.iterrows()}
    # Of one study, so of the same examples.
    scores = {title: np.array([of[id_] for id_ in each[reference]]) for title, of in each.items()}
    others = [title for title in scores if title != reference]
    differences = {title: paired_bootstrap(scores[title], scores[reference], DRAWS) for title in others}
    corrected = dict(zip(others, holm([found["p"] for found in differences.values()]), strict=True))
    gpu = {row["technique"]: row for row in read(RESULTS / "gpu_techniques.json")["rows"]}
    rows, score = [], f"best_validation_{metric}"
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
        if title in gpu:
            row["gpu_windows"], row["gpu_mib"] = gpu[title]["windows_per_second"], gpu[title]["peak_mib"]
        rows.append(row)
    return rows


def tests(folder: Path, sweep: str, reference: str, metric: str) -> list[dict]:
    """A row for each technique that other stages trained at its best rate, the highest mean first."""
    frame, _, best = of_study(folder, sweep, reference, metric)
    runs, scores = {}, {}
    for _, chosen in best.iterrows():
        title = chosen["technique"]
        at_best = (frame["technique"] == title) & (frame["learning_rate"] == chosen["learning_rate"])
        found = frame[at_best & (frame["stage"] != sweep)].sort_values("seed")
        if len(found):
            runs[title] = found
            scores[title] = np.array([tested(folder, name, metric) for name in found["name"]])
    if reference not in scores:
        raise UserError(
            f"{folder} has no test of {reference} at its best rate: train it, or set --reference."
        )
    # Where training fails with one seed and not with the next, seeds differ more than where it works.
    learnt = [each for each in scores.values() if each.mean() >= scores[reference].mean() / 2]
    spread = spread_of(learnt)
    others = [title for title in scores if title != reference]
    differences = {title: paired_difference(scores[title], scores[reference], spread) for title in others}
    corrected = dict(zip(others, holm([found["p"] for found in differences.values()]), strict=True))
    rows = []
    for title in sorted(scores, key=lambda title: -scores[title].mean()):
        by_seed = runs[title][["seed", f"test_{metric}"]].itertuples(index=False)
        row = {
            "technique": title,
            "learning_rate": number(runs[title]["learning_rate"].iloc[0]),
            "seeds": ", ".join(f"{seed}: {value:.1f}" for seed, value in by_seed),
            "mean": rounded(scores[title].mean(), *interval(scores[title], spread)),
        }
        if title != reference:
            found = differences[title]
            row["difference"] = rounded(found["difference"], found["low"], found["high"])
            row["p"] = max(round(float(corrected[title]), 3), 0.001)
        rows.append(row)
    return rows


def tested(folder: Path, name: str, metric: str) -> list[float]:
    """A run's score of each test question, in the order of their ids."""
    file = folder / "runs" / name / "predictions" / "test.json"
    if not file.is_file():
        raise UserError(f"{file} does not exist: the scores of each test question are needed.")
    return [100 * row[metric] for row in sorted(json.loads(file.read_text()), key=lambda row: row["id"])]


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
    parser.add_argument("--tests", action="store_true", help="the tests of the other stages")
    json_flag(parser)
    args = parser.parse_args()
    made = tests if args.tests else table
    rows = made(args.study, args.sweep, args.reference, args.metric)
    save_rows(args.json, rows)
    columns = read(RESULTS / f"peft_{'full' if args.tests else 'sweep'}.json")["columns"]
    print(markdown({"rows": rows, "columns": columns}))


if __name__ == "__main__":
    sys.exit(guarded(main))
