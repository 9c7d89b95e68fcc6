"""Folders that `export.py --format onnx` writes, opened by optimum: its tokens and logits against the stored models'.

optimum-onnx needs an older transformers, in an environment of its own that this script makes. Each model is exported, and
its folder is opened there by AutoTokenizer and the class of its task alone (ORTModelForQuestionAnswering and
ORTModelForSequenceClassification): the network of 32 bits against the stored model in torch, the one of 8 bits against the same
file in this project's ONNX Runtime.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from end_to_end import environment
from table_rows import json_flag, save_rows

from common.cli import guarded
from common.paths import ROOT

OPTIMUM = """
import json, sys
from importlib.metadata import version
import optimum.onnxruntime, torch
from transformers import AutoTokenizer

found = []
for each in json.load(open(sys.argv[1])):
    tokenizer = AutoTokenizer.from_pretrained(each["folder"])
    kind = getattr(optimum.onnxruntime, each["class"])
    networks = {
        # As anybody opens it: optimum finds the file.
        "fp32": kind.from_pretrained(each["folder"]),
        "int8": kind.from_pretrained(each["folder"], file_name="model_quantized.onnx"),
    }
    read = {"input_ids": [], "fp32": [], "int8": []}
    for row in each["rows"]:
        inputs = tokenizer(*row, truncation="only_second" if len(row) == 2 else True, return_tensors="pt")
        read["input_ids"].append(inputs["input_ids"].tolist())
        for name, network in networks.items():
            with torch.no_grad():
                out = network(**inputs)
            read[name].append({key: out[key].tolist() for key in each["outputs"]})
    found.append(read)
names = ("optimum", "optimum-onnx", "transformers", "onnxruntime", "torch")
print(json.dumps({"found": found, "versions": {name: version(name) for name in names}}))
"""


def opened(asked: Sequence[Mapping[str, Any]], python: Path) -> dict:
    """What optimum reads and gives for each folder."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "asked.json"
        file.write_text(json.dumps(asked))
        done = subprocess.run([str(python), "-c", OPTIMUM, str(file)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    found: dict = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def same_tokens(found: Sequence, wanted: Mapping[str, Any]) -> bool:
    """Whether the token ids of each text are those that were read here."""
    return all(ids == wanted[f"{i}.input_ids"].tolist() for i, ids in enumerate(found))


def furthest(found: Sequence[Mapping[str, Any]], wanted: Mapping[str, Any]) -> float:
    """The greatest difference of a logit; infinite where there are others in number."""
    import torch

    apart = [0.0]
    for i, outputs in enumerate(found):
        for name, values in outputs.items():
            given, own = torch.tensor(values), wanted[f"{i}.{name}"]
            same_shape = given.shape == own.shape
            apart.append(
                (given - own).abs().nan_to_num(float("inf")).max().item() if same_shape else float("inf")
            )
    return max(apart)


def run(models: Sequence[str], python: Path) -> tuple[list[dict], dict[str, str]]:
    """(a row for each model, the versions in optimum's environment)."""
    from common.export import checking, exporting, opened_alone, source
    from common.export.writing import INT8
    from common.tasks.table import task_of

    asked, here = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for i, model in enumerate(models):
            folder = Path(scratch) / f"export-{i}"
            exporting.export(model, folder, "onnx")
            stored = source.opened(model, Path(scratch) / f"stored-{i}")
            tokenizer = source.load(stored)[1]
            rows, head = checking.rows_of(stored), stored.info.head
            length = stored.info.settings["max_length"]
            network = opened_alone.Network(str(folder / INT8))
            own = {
                "fp32": checking.expected(stored),
                "int8": opened_alone.read(network, tokenizer, head, rows, max_length=length),
            }
            here.append((stored.info, own))
            asked.append(
                {
                    "folder": str(folder),
                    "class": f"ORTModelFor{head}",
                    "rows": rows,
                    "outputs": list(task_of(stored.info.task).onnx_outputs),
                }
            )
        given = opened(asked, python)
    rows_of_table = [
        {
            "class": each["class"],
            "task": info.task,
            "technique": info.technique,
            "texts": len(each["rows"]),
            "tokens": "the same" if same_tokens(found["input_ids"], own["fp32"]) else "others",
            "apart_fp32": furthest(found["fp32"], own["fp32"]),
            "apart_int8": furthest(found["int8"], own["int8"]),
        }
        for each, (info, own), found in zip(asked, here, given["found"], strict=True)
    ]
    return rows_of_table, given["versions"]


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("models", nargs="+", metavar="MODEL", help="as export.py takes them: URIs, runs, folders")
    p.add_argument(
        "--environments", type=Path, default=ROOT / ".environments", help="where optimum's is kept"
    )
    json_flag(p)
    args = p.parse_args()
    rows, versions = run(args.models, environment("optimum", args.environments))
    there = ", ".join(f"{name} {number}" for name, number in versions.items())
    save_rows(args.json, rows, optimum=there)
    print("\n".join([there, *map(str, rows)]))


if __name__ == "__main__":
    sys.exit(guarded(main))
