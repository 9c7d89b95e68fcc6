"""Certified abstention on test data: what each model allows itself to answer, and how often it is wrong there.

Models are URIs of the store (runs:/RUN_ID/model, models:/NAME@ALIAS), such as a LoRA run, one of all weights and the int8
version for ONNX Runtime. Each answers the test part of --data_dir once; the thresholds are those that are stored with it.
Prints a Markdown table, and writes the same as JSON with --output.
"""

import argparse
import json
import sys
from pathlib import Path

import _path  # noqa: F401
import numpy as np
import pandas as pd
from decoding import provenance
from scipy.stats import beta

from common.cli import guarded
from common.data import prepared
from common.models.bundles import read_bundle
from common.reports.text_tables import to_markdown
from common.scoring import calibration
from common.scoring.names import LABELS
from common.scratch import scratch
from common.serving import model_logging, stored_code
from common.tasks.table import task_of
from common.tracking import store
from common.training.sampling import subset

ROWS, CHARACTERS = 64, 300_000
"""Of a request: below what a served model takes."""

SEED = 42


def requests(records: list[dict[str, str]]) -> list[list[dict[str, str]]]:
    """The records in requests that a served model takes."""
    made: list[list[dict[str, str]]] = [[]]
    for record in records:
        size = sum(len(text) for row in made[-1] for text in row.values())
        if len(made[-1]) == ROWS or size + sum(map(len, record.values())) > CHARACTERS:
            made.append([])
        made[-1].append(record)
    return made


def measured(uri: str, data_dir: Path, limit: int | None) -> dict:
    """What a model answers of the test data, and what its stored thresholds make of that."""
    with scratch() as folder:
        about = read_bundle(stored_code.verified(uri, folder) / "artifacts" / "bundle")
    task = task_of(about.task)
    if task.candidates([]) is None:
        raise SystemExit(
            f"{uri}: {task.name} gives no confidence in an answer as a whole, so nothing is promised."
        )
    served = model_logging.module_of(task)
    splits, record = prepared.load(data_dir)
    # As a run samples its test data: files may hold one label after the other.
    chosen = subset(splits["test"], limit, SEED, task.balanced_by).to_list()
    examples = [task.named(example, record) for example in chosen]
    asked = [task.request(example) for example in examples]
    kept = [i for i, each in enumerate(asked) if served.is_taken(each)]
    examples, asked = [examples[i] for i in kept], [asked[i] for i in kept]
    model = stored_code.load(uri)
    answers: list[dict] = []
    for rows in requests(asked):
        answers += model.predict(pd.DataFrame(rows), params={"raw_scores": True}).to_dict("records")
    _, each = task.judged(answers, examples)
    right, scores = task.right_of(each), each[task.metric]
    served_scores, raw = (np.array([a[name] for a in answers]) for name in ("score", "raw_score"))
    held = about.settings.get("abstention", {"thresholds": [], "examples": 0})
    return {
        "uri": uri,
        "model": f"{about.technique}{'' if about.runtime == 'torch' else ', ' + about.runtime}",
        "metric": LABELS[task.metric],
        "score": 100 * float(scores.mean()),
        "examples": len(examples),
        "validation_examples": held["examples"],
        "temperature": about.settings.get("temperature", 1.0),
        "ece_raw": 100 * calibration.calibration_error(raw, right),
        "ece": 100 * calibration.calibration_error(served_scores, right),
        "aurc": 100 * calibration.aurc(raw, right),
        "promises": [promise(error, threshold, raw, right) for error, threshold in held["thresholds"]],
    }


def promise(max_error: float, threshold: float | None, raw: np.ndarray, right: np.ndarray) -> dict:
    """Coverage and error of an allowed error, with the exact 95% interval of the error."""
    given = np.zeros(len(raw), dtype=bool) if threshold is None else raw >= threshold
    n, wrong = int(given.sum()), int((given & ~right).sum())
    low = float(beta.ppf(0.025, wrong, n - wrong + 1)) if wrong else 0.0
    high = float(beta.ppf(0.975, wrong + 1, n - wrong)) if n > wrong else 1.0
    return {
        "max_error": max_error,
        "threshold": threshold,
        "answered": n,
        "coverage": n / len(raw),
        "wrong": wrong,
        "error": wrong / n if n else None,
        "error_95": [low, high] if n else None,
    }


def tables(found: list[dict]) -> str:
    """Calibration, and allowed against measured error, in Markdown."""
    calibrated = pd.DataFrame(
        {
            "model": [each["model"] for each in found],
            "score": [f"{each['metric']} {each['score']:.1f}" for each in found],
            "temperature": [f"{each['temperature']:.2f}" for each in found],
            "ECE raw": [f"{each['ece_raw']:.1f}%" for each in found],
            "ECE served": [f"{each['ece']:.1f}%" for each in found],
            "AURC": [f"{each['aurc']:.1f}%" for each in found],
        }
    )
    rows = []
    for each in found:
        for made in each["promises"]:
            none = made["threshold"] is None
            low, high = made["error_95"] or (0.0, 0.0)
            rows.append(
                {
                    "model": each["model"],
                    "allowed error": f"{made['max_error']:.0%}",
                    "least raw score": "none" if none else f"{made['threshold']:.4g}",
                    "answered": f"{made['coverage']:.1%}",
                    "wrong of these [95%]": "–"
                    if not made["answered"]
                    else f"{made['error']:.1%} [{low:.1%}, {high:.1%}]",
                }
            )
    return f"{to_markdown(calibrated)}\n{to_markdown(pd.DataFrame(rows))}"


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("models", nargs="+", metavar="URI", help="runs:/RUN_ID/model or models:/NAME@ALIAS")
    p.add_argument("--data_dir", type=Path, required=True, help="prepared data, whose test part is asked")
    p.add_argument("--max_test_samples", type=int, help="ask a sample only, that of runs with seed 42")
    p.add_argument("--output", type=Path, help="file for the figures as JSON")
    args = p.parse_args()
    store.configure()
    found = [measured(uri, args.data_dir, args.max_test_samples) for uri in args.models]
    print(f"{found[0]['examples']:,} test examples.\n\n{tables(found)}")
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(provenance() | {"models": found}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(guarded(main))
